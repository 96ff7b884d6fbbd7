// Tests of Generate on the wire: order of events, ends, repeats, cancellation, slow readers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/error.h"
#include "common/rpc/call_ids.h"
#include "common/rpc/request_id.h"
#include "services/gateway/testing/gateway_fixture.h"

namespace sextant {
namespace {

using testing::FakeCapture;
using testing::FakeWorker;
using testing::GatewayTest;
using testing::kMaxStreams;
using testing::Outcome;
using Event = v1::GenerateResponse;

// Sends readings of positions 0, 1, 2 and ends the log.
grpc::Status ThreeReadings(grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                           const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
  FakeCapture::WriteReadings(writer, spec, 0, {1});
  FakeCapture::WriteReadings(writer, spec, 1, {0, 2});
  FakeCapture::WriteEnd(writer, 3, 0);
  return grpc::Status::OK;
}

TEST_F(GatewayTest, ForwardsTextAndStatistics) {
  grpc::ClientContext context;
  SetRequestId(context, "my-request");
  const Outcome outcome = Generate(Request(), &context);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.cases(),
            (std::vector<int>{Event::kStarted, Event::kToken, Event::kToken, Event::kFinished}));
  EXPECT_EQ(outcome.events[0].started().request_id(), "my-request");
  EXPECT_EQ(outcome.events[0].started().prompt_token_texts(2), "y");
  EXPECT_EQ(outcome.events[0].started().capture(), "");
  EXPECT_EQ(outcome.text(), "ab");
  EXPECT_EQ(outcome.finished().statistics().prompt_token_count(), 3);
  EXPECT_EQ(outcome.finished().statistics().generated_token_count(), 2);
  EXPECT_TRUE(capture_.opened().empty());
  EXPECT_EQ(first_.last_call().request_id + second_.last_call().request_id, "my-request");
}

TEST_F(GatewayTest, PassesTheTraceOn) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  int calls = 0;
  const auto tracestate_passed_on = [&](bool with_parent, const std::vector<std::string>& values) {
    grpc::ClientContext context;
    const std::string id = absl::StrCat("call-", ++calls);
    SetRequestId(context, id);
    if (with_parent) context.AddMetadata(kTraceparentKey, "00-" + trace + "-00f067aa0ba902b7-01");
    for (const std::string& value : values) context.AddMetadata("tracestate", value);
    EXPECT_TRUE(Generate(Request(), &context).status.ok());
    const CallIds ids = (first_.last_call().request_id == id ? first_ : second_).last_call();
    EXPECT_EQ(ids.request_id, id);
    EXPECT_EQ(ids.trace.trace_id == trace, with_parent);
    return ids.tracestate;
  };
  EXPECT_EQ(tracestate_passed_on(true, {"vendor=1", "other=2"}), "vendor=1,other=2");
  EXPECT_EQ(tracestate_passed_on(true, {}), "");
  EXPECT_EQ(tracestate_passed_on(true, {"long=" + std::string(508, 'x')}), "") << "cut it would be another";
  EXPECT_EQ(tracestate_passed_on(false, {"vendor=1"}), "") << "it belongs to no trace";
}

TEST_F(GatewayTest, ForwardsReadingsAndClosesTheCapture) {
  capture_.SetScript(ThreeReadings);
  const Outcome outcome = Generate(Request(/*lens=*/true));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  int positions = 0, finished = 0;
  for (const Event& event : outcome.events) {
    positions += event.readings().positions_size();
    finished += event.has_finished();
  }
  EXPECT_EQ(positions, 3);
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(outcome.events[0].event_case(), Event::kStarted);
  EXPECT_EQ(outcome.events[0].started().lens_layers_size(), testing::kLayers);
  EXPECT_TRUE(capture_.AwaitClosed(1));
  const auto opened = capture_.opened();
  ASSERT_EQ(opened.size(), 1u);
  EXPECT_EQ(outcome.events[0].started().capture(), CaptureName(opened[0].capture()));
  EXPECT_EQ(opened[0].engine(), "engine");
  EXPECT_EQ(opened[0].max_positions(), 3 + 1);
  EXPECT_EQ(opened[0].prompt_token_ids_size(), 3);
}

TEST_F(GatewayTest, SendsStartedBeforeAReadingThatOvertakesTheTokens) {
  absl::Notification reading_seen;
  SetWorkers([&](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    reading_seen.WaitForNotificationWithTimeout(testing::kPatience);
    FakeWorker::WriteToken(writer, 0, 'a');
    FakeWorker::WriteFinished(writer, 3);
    return grpc::Status::OK;
  });
  capture_.SetScript(ThreeReadings);
  grpc::ClientContext context;
  SetTimeout(context, testing::kPatience);
  const auto reader = stub_->Generate(&context, Request(true));
  Event event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_TRUE(event.has_started());
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_TRUE(event.has_readings());
  reading_seen.Notify();
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(GatewayTest, FinishedDoesNotWaitForReadings) {
  absl::Notification finished_seen;
  capture_.SetScript([&](grpc::ServerContext& context, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest& request, FakeCapture::Writer& writer) {
    finished_seen.WaitForNotificationWithTimeout(testing::kPatience);
    return ThreeReadings(context, spec, request, writer);
  });
  grpc::ClientContext context;
  SetTimeout(context, testing::kPatience);
  const auto reader = stub_->Generate(&context, Request(true));
  Event event;
  int positions_after = 0;
  bool finished = false;
  while (reader->Read(&event)) {
    if (finished) positions_after += event.readings().positions_size();
    if (event.has_finished()) {
      finished = true;
      finished_seen.Notify();
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(positions_after, 3);
}

TEST_F(GatewayTest, HoldsACaptureWithoutLensWhileTheRequestIsQueued) {
  absl::Notification following;
  SetWorkers([&](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    EXPECT_TRUE(following.WaitForNotificationWithTimeout(testing::kPatience));
    FakeWorker::WriteToken(writer, 0, 'a');
    FakeWorker::WriteFinished(writer, 0);
    return grpc::Status::OK;
  });
  capture_.SetScript([&](grpc::ServerContext& context, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest&, FakeCapture::Writer&) {
    EXPECT_FALSE(spec.has_lens());
    following.Notify();
    FakeWorker::AwaitCancelled(context);
    return grpc::Status::CANCELLED;
  });
  v1::GenerateRequest request = Request();
  request.mutable_capture()->add_sites(v1::SITE_RESID_POST);
  const Outcome outcome = Generate(request);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(capture_.AwaitClosed(1));
}

TEST_F(GatewayTest, EndsOkWithTheMissingCountAfterLensWait) {
  capture_.SetScript([](grpc::ServerContext& context, const internal::v1::CaptureSpec& spec,
                        const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
    FakeCapture::WriteReadings(writer, spec, 0, {1});
    FakeWorker::AwaitCancelled(context);
    return grpc::Status::CANCELLED;
  });
  v1::GenerateRequest request = Request(true);
  request.set_lens_wait_ms(200);
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  ASSERT_TRUE(outcome.events.back().has_finished());
  EXPECT_EQ(outcome.finished().statistics().missing_reading_count(), 2);
  EXPECT_EQ(capture_.closed_count(), 0u) << "FollowReadings may go on";
}

TEST_F(GatewayTest, SaysWhenReadingsCanNeverCome) {
  capture_.SetScript([](grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                        const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
    FakeCapture::WriteReadings(writer, spec, 0, {0, 1, 2});
    FakeCapture::WriteEnd(writer, 3, 1);
    return grpc::Status::OK;
  });
  const Outcome outcome = Generate(Request(true));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ErrorReason(outcome.status), "READINGS_LOST");
  EXPECT_TRUE(capture_.AwaitClosed(1));
}

TEST_F(GatewayTest, SaysSoTooWhenTheLogsEndIsLate) {
  absl::Notification all_read, finished_read;
  SetWorkers([&](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    all_read.WaitForNotificationWithTimeout(testing::kPatience);
    FakeWorker::WriteToken(writer, 0, 'a');
    FakeWorker::WriteFinished(writer, 3);
    return grpc::Status::OK;
  });
  capture_.SetScript([&](grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
    FakeCapture::WriteReadings(writer, spec, 0, {0, 1, 2});
    finished_read.WaitForNotificationWithTimeout(testing::kPatience);
    absl::Notification lens_wait_over;
    lens_wait_over.WaitForNotificationWithTimeout(absl::Milliseconds(300));
    FakeCapture::WriteEnd(writer, 3, 1);
    return grpc::Status::OK;
  });
  v1::GenerateRequest request = Request(true);
  request.set_lens_wait_ms(100);
  grpc::ClientContext context;
  SetTimeout(context, testing::kPatience);
  const auto reader = stub_->Generate(&context, request);
  Event event;
  while (reader->Read(&event)) {
    if (event.has_readings()) all_read.Notify();
    if (event.has_finished()) finished_read.Notify();
  }
  EXPECT_EQ(ErrorReason(FromGrpcStatus(reader->Finish())), "READINGS_LOST");
}

// How the calls of a server end that is gone, and of one that shuts down.
class LostPeerTest : public GatewayTest, public ::testing::WithParamInterface<grpc::StatusCode> {};
constexpr grpc::StatusCode kEnds[] = {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED};
INSTANTIATE_TEST_SUITE_P(Ends, LostPeerTest, ::testing::ValuesIn(kEnds));

TEST_P(LostPeerTest, ResumesABrokenLogFromItsNextIndex) {
  std::atomic<int> streams = 0;
  std::atomic<int64_t> resumed_from = -1;
  capture_.SetScript([&](grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest& request, FakeCapture::Writer& writer) {
    if (streams++ == 0) {
      FakeCapture::WriteReadings(writer, spec, 0, {0, 1});
      return grpc::Status(GetParam(), "broken");
    }
    resumed_from = request.from_index();
    FakeCapture::WriteReadings(writer, spec, request.from_index(), {2});
    FakeCapture::WriteEnd(writer, 3, 0);
    return grpc::Status::OK;
  });
  const Outcome outcome = Generate(Request(true));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(resumed_from, 2);
}

class ImpatientGatewayTest : public GatewayTest {
 protected:
  ImpatientGatewayTest() { options_.generate.follow_patience = absl::Milliseconds(50); }
};

TEST_F(ImpatientGatewayTest, PatienceBeginsWhenTheLogBreaks) {
  std::atomic<int> streams = 0;
  capture_.SetScript([&](grpc::ServerContext& context, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest& request, FakeCapture::Writer& writer) {
    if (streams++ == 0) {
      // Stands for longer than the patience and than what counts as healthy, and brings nothing.
      writer.SendInitialMetadata();
      absl::Notification never;
      never.WaitForNotificationWithTimeout(absl::Milliseconds(400));
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
    }
    return ThreeReadings(context, spec, request, writer);
  });
  const Outcome outcome = Generate(Request(true));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(streams, 2);
}

TEST_F(GatewayTest, ALostCaptureEndsTheGeneration) {
  absl::Notification generating, worker_cancelled;
  SetWorkers(
      [&](grpc::ServerContext& context, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
        FakeWorker::WriteToken(writer, 0, 'a');
        generating.Notify();
        if (FakeWorker::AwaitCancelled(context)) worker_cancelled.Notify();
        return grpc::Status::CANCELLED;
      });
  capture_.SetScript([&](grpc::ServerContext&, const internal::v1::CaptureSpec&,
                         const internal::v1::FollowReadingsRequest&, FakeCapture::Writer&) {
    generating.WaitForNotificationWithTimeout(testing::kPatience);
    return ToGrpcStatus(MakeError(absl::StatusCode::kNotFound, "CAPTURE_NOT_FOUND", "no such capture"));
  });
  const Outcome outcome = Generate(Request(true));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(outcome.status), "CAPTURE_LOST");
  EXPECT_TRUE(worker_cancelled.WaitForNotificationWithTimeout(testing::kPatience));
}

TEST_F(GatewayTest, TheWorkersReasonOutweighsALostCapture) {
  // A lost group takes its captures along, and the capture service may be the first to say so.
  std::atomic<int> attempts = 0;
  absl::Notification lost;
  SetWorkers([&](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    if (attempts++ == 0) {
      lost.WaitForNotificationWithTimeout(testing::kPatience);
      return ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable, "GROUP_LOST", "a rank was lost"));
    }
    FakeWorker::WriteToken(writer, 0, 'a');
    FakeWorker::WriteFinished(writer, 3);
    return grpc::Status::OK;
  });
  capture_.SetScript([&](grpc::ServerContext& context, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest& request, FakeCapture::Writer& writer) {
    if (capture_.opened().size() == 1) {
      lost.Notify();
      return ToGrpcStatus(MakeError(absl::StatusCode::kNotFound, "CAPTURE_NOT_FOUND", "no such capture"));
    }
    return ThreeReadings(context, spec, request, writer);
  });
  const Outcome outcome = Generate(Request(true));
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(attempts, 2);
}

TEST_P(LostPeerTest, RepeatsElsewhereWhileNothingWasForwarded) {
  std::atomic<int> attempts = 0;
  SetWorkers([&](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    if (attempts++ == 0) return grpc::Status(GetParam(), "Socket closed");
    FakeWorker::WriteToken(writer, 0, 'a');
    FakeWorker::WriteFinished(writer, 3);
    return grpc::Status::OK;
  });
  // The first attempt's capture has nothing to say; it ends with its stream.
  capture_.SetScript([&](grpc::ServerContext& context, const internal::v1::CaptureSpec& spec,
                         const internal::v1::FollowReadingsRequest& request, FakeCapture::Writer& writer) {
    if (capture_.opened().size() == 1) {
      FakeWorker::AwaitCancelled(context);
      return grpc::Status::CANCELLED;
    }
    return ThreeReadings(context, spec, request, writer);
  });
  const Outcome outcome = Generate(Request(true));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(first_.calls(), 1);
  EXPECT_EQ(second_.calls(), 1);
  const auto opened = capture_.opened();
  ASSERT_EQ(opened.size(), 2u);
  EXPECT_NE(opened[0].capture(), opened[1].capture()) << "every attempt has a capture of its own";
  EXPECT_TRUE(capture_.AwaitClosed(2));
}

TEST_P(LostPeerTest, DoesNotRepeatAfterTheFirstToken) {
  SetWorkers([](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    FakeWorker::WriteToken(writer, 0, 'a');
    return grpc::Status(GetParam(), "Socket closed");
  });
  const Outcome outcome = Generate(Request());
  EXPECT_EQ(ErrorReason(outcome.status), "GROUP_LOST") << outcome.status;
  EXPECT_TRUE(ErrorRetryAfter(outcome.status).has_value());
  EXPECT_EQ(first_.calls() + second_.calls(), 1);
}

TEST_F(GatewayTest, PassesTheWorkersOwnReasonOn) {
  SetWorkers([](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer&) {
    return ToGrpcStatus(
        MakeError(absl::StatusCode::kResourceExhausted, "CAPTURE_STALLED", "start more decoders"));
  });
  const Outcome outcome = Generate(Request());
  EXPECT_EQ(ErrorReason(outcome.status), "CAPTURE_STALLED");
  EXPECT_EQ(outcome.status.message(), "start more decoders");
}

TEST_F(GatewayTest, CancellationReachesWorkerAndCapture) {
  absl::Notification following, worker_cancelled, follower_cancelled;
  SetWorkers(
      [&](grpc::ServerContext& context, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
        following.WaitForNotificationWithTimeout(testing::kPatience);
        FakeWorker::WriteToken(writer, 0, 'a');
        if (FakeWorker::AwaitCancelled(context)) worker_cancelled.Notify();
        return grpc::Status::CANCELLED;
      });
  capture_.SetScript([&](grpc::ServerContext& context, const internal::v1::CaptureSpec&,
                         const internal::v1::FollowReadingsRequest&, FakeCapture::Writer&) {
    following.Notify();
    if (FakeWorker::AwaitCancelled(context)) follower_cancelled.Notify();
    return grpc::Status::CANCELLED;
  });
  grpc::ClientContext context;
  SetTimeout(context, testing::kPatience);
  const auto reader = stub_->Generate(&context, Request(true));
  Event event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  reader->Finish();
  EXPECT_TRUE(worker_cancelled.WaitForNotificationWithTimeout(testing::kPatience));
  EXPECT_TRUE(follower_cancelled.WaitForNotificationWithTimeout(testing::kPatience));
  EXPECT_TRUE(capture_.AwaitClosed(1));
}

TEST_F(GatewayTest, AReaderThatStopsHoldsUpNobodyElse) {
  std::atomic<bool> stop = false;
  SetWorkers([&](grpc::ServerContext& context, const internal::v1::GenerateRequest& request,
                 FakeWorker::Writer& writer) {
    const bool endless = request.max_new_tokens() == 50;
    for (int i = 0; endless && !stop && !context.IsCancelled(); ++i) FakeWorker::WriteToken(writer, i, 'a');
    FakeWorker::WriteFinished(writer, 0);
    return grpc::Status::OK;
  });
  v1::GenerateRequest endless = Request();
  endless.set_max_new_tokens(50);
  grpc::ClientContext context;
  SetTimeout(context, testing::kPatience);
  const auto stopped_reader = stub_->Generate(&context, endless);
  Event event;
  ASSERT_TRUE(stopped_reader->Read(&event));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Generate(Request()).status.ok());
  stop = true;
  context.TryCancel();
  stopped_reader->Finish();
}

TEST_F(GatewayTest, RefusesMoreStreamsThanItHasThreadsFor) {
  absl::Notification release;
  SetWorkers([&](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    FakeWorker::WriteToken(writer, 0, 'a');
    release.WaitForNotificationWithTimeout(testing::kPatience);
    FakeWorker::WriteFinished(writer, 0);
    return grpc::Status::OK;
  });
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<Event>>> readers;
  Event event;
  for (int i = 0; i < kMaxStreams; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    SetTimeout(*contexts.back(), testing::kPatience);
    readers.push_back(stub_->Generate(contexts.back().get(), Request()));
    ASSERT_TRUE(readers.back()->Read(&event));
  }
  const Outcome outcome = Generate(Request());
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(outcome.status), "TOO_MANY_CALLS");
  EXPECT_TRUE(ErrorRetryAfter(outcome.status).has_value());
  release.Notify();
  for (auto& reader : readers) {
    while (reader->Read(&event)) {
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
}

TEST_F(GatewayTest, ReadsPromptLogprobsOffTheLens) {
  capture_.SetScript([](grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                        const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
    FakeCapture::WriteReadings(writer, spec, 0, {0, 1});
    FakeCapture::WriteEnd(writer, 2, 0);
    return grpc::Status::OK;
  });
  SetWorkers([](grpc::ServerContext&, const internal::v1::GenerateRequest&, FakeWorker::Writer& writer) {
    FakeWorker::WriteToken(writer, 0, 'a');
    FakeWorker::WriteFinished(writer, 2);
    return grpc::Status::OK;
  });
  v1::GenerateRequest request = Request();
  request.set_prompt_logprobs(true);
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.cases(), (std::vector<int>{Event::kStarted, Event::kToken, Event::kFinished}))
      << "the client asked for no lens";
  const auto& logprobs = outcome.finished().statistics().prompt_logprobs();
  ASSERT_EQ(logprobs.size(), 3);
  EXPECT_TRUE(std::isnan(logprobs[0]));
  EXPECT_EQ(logprobs[1], 0);
  EXPECT_EQ(logprobs[2], -1);
}

TEST_F(GatewayTest, ResolvesVectorsOnceAndWarnsOfIdleOnes) {
  v1::GenerateRequest request = Request();
  request.add_interventions()->set_vector("happy");
  for (int i = 0; i < 2; ++i) {
    const Outcome outcome = Generate(request);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const Event& before_last = outcome.events[outcome.events.size() - 2];
    EXPECT_EQ(before_last.warning().reason(), "INTERVENTION_TOUCHED_NOTHING");
  }
  EXPECT_EQ(registry_.reads(), 1);
}

TEST_F(GatewayTest, RefusesBeforeAnythingIsOpened) {
  v1::GenerateRequest request = Request(true);
  request.mutable_lens()->add_layers(99);
  EXPECT_EQ(ErrorReason(Generate(request).status), "LAYER_OUT_OF_RANGE");
  capture_.SetOpenStatus(
      MakeError(absl::StatusCode::kResourceExhausted, "CAPTURE_BUDGET", "full", absl::Seconds(3)));
  const Outcome outcome = Generate(Request(true));
  EXPECT_EQ(ErrorReason(outcome.status), "CAPTURE_BUDGET");
  EXPECT_EQ(ErrorRetryAfter(outcome.status), absl::Seconds(3));
  EXPECT_TRUE(outcome.events.empty());
  EXPECT_EQ(first_.calls() + second_.calls(), 0);
}

TEST_F(GatewayTest, ACaptureServiceThatDoesNotAnswerIsUnreachable) {
  capture_.SetOpenStatus(absl::DeadlineExceededError("Deadline Exceeded"));
  const Outcome outcome = Generate(Request(true));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(outcome.status), "CAPTURE_UNREACHABLE");
  EXPECT_TRUE(ErrorRetryAfter(outcome.status).has_value());
}

}  // namespace
}  // namespace sextant
