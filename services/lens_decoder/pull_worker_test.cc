// Tests of the worker against a scripted capture service on loopback.
#include "services/lens_decoder/pull_worker.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/activation/readings.h"
#include "common/base/error.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/backend.h"
#include "services/lens_decoder/testing/scripted_capture.h"
#include "services/lens_decoder/testing/tiny_lens.h"

namespace sextant {
namespace {

using internal::v1::LensStreamService;
using testing::ElementsAre;

class PullWorkerTest : public testing::Test {
 protected:
  // Starts the capture service and a worker of it.
  void Start(ScriptedCapture::Script script) {
    capture_ = std::make_unique<ScriptedCapture>(std::move(script));
    auto server = RpcServer::Start({}, {{LensStreamService::service_full_name(), capture_.get()}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    StartWorker(absl::StrCat("127.0.0.1:", server_->port()));
  }

  void SetUp() override {
    options_.min_backoff = absl::Milliseconds(1);
    options_.max_backoff = absl::Milliseconds(20);
  }

  void StartWorker(const std::string& address) {
    options_.capture = address;
    options_.stream = {"decoder-1", std::string(32, 'd'), 1 << 20};
    worker_ = std::make_unique<PullWorker>(MakeChannel(address, {.own_connection = true}), options_,
                                           *decoder_, metrics_);
    thread_ = std::thread([this] { status_ = worker_->Run(); });
  }

  void Stop() {
    worker_->Stop();
    thread_.join();
    EXPECT_TRUE(status_.ok()) << status_;
  }

  // Waits until `done` has been notified by the script.
  static void Await(const absl::Notification& done) {
    ASSERT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  }

  static bool Eventually(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!condition()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }

  double BadLeaseCount() {
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      for (const prometheus::ClientMetric& metric : family.metric) {
        if (!metric.label.empty() && metric.label[0].value == "bad") return metric.counter.value;
      }
    }
    return 0;
  }

  Lease SomeLease(int64_t id, int positions = 3) {
    Lease lease = MakeTinyLease({.rows = {{v1::SITE_RESID_POST, 0}, {v1::SITE_RESID_POST, 1}},
                                 .final_row_index = 1,
                                 .position_count = positions},
                                static_cast<uint32_t>(id));
    lease.id = id;
    return lease;
  }

  Lease BadLease(int64_t id) {
    Lease lease = SomeLease(id);
    lease.target_ids[1] = kTinyVocab;
    return lease;
  }

  const TinyHead head_;
  const std::unique_ptr<Backend> backend_ = *MakeCpuBackend({});
  const LensHead loaded_ = head_.Load(*backend_);
  const std::unique_ptr<LeaseDecoder> decoder_ =
      *LeaseDecoder::Make(*backend_, loaded_, {.max_batch_rows = 4, .max_reading_bytes = 1});
  prometheus::Registry registry_;
  DecoderMetrics metrics_{registry_};
  PullWorkerOptions options_;
  std::unique_ptr<ScriptedCapture> capture_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<PullWorker> worker_;
  std::thread thread_;
  absl::Status status_;
};

TEST_F(PullWorkerTest, LeasesAreAnsweredAndStoppingEndsTheStream) {
  absl::Notification answered, ended;
  internal::v1::DecoderHello hello;
  std::map<int64_t, v1::Readings> results;
  int64_t first_want = 0, last_want = 0;
  Start([&](int, Connection& connection) {
    connection.Greet();
    hello = connection.hello;
    first_want = connection.want_bytes;
    for (const int64_t id : {1, 2, 3}) connection.SendLease(SomeLease(id));
    connection.Take([&] {
      return connection.results.size() == 3 && connection.results.rbegin()->second.positions_size() == 3;
    });
    answered.Notify();
    connection.TakeUntilEnd();
    results = connection.results;
    last_want = connection.want_bytes;
    ended.Notify();
    return grpc::Status::OK;
  });
  Await(answered);
  EXPECT_TRUE(worker_->connected());
  Stop();
  Await(ended);
  EXPECT_FALSE(worker_->connected());
  EXPECT_EQ(hello.decoder(), "decoder-1");
  EXPECT_THAT(hello.lens_digests(), ElementsAre(std::string(32, 'd')));
  EXPECT_EQ(first_want, 1 << 20);
  EXPECT_EQ(last_want, 0);
  for (const int64_t id : {1, 2, 3}) {
    EXPECT_THAT(results[id].positions(), ElementsAre(100, 101, 102));
    EXPECT_TRUE(ValidateReadings(results[id], SomeLease(id).spec).ok());
  }
}

TEST_F(PullWorkerTest, BadLeasesAreGivenBackAndGoodOnesGoOn) {
  absl::Notification done;
  std::set<int64_t> released;
  Start([&](int, Connection& connection) {
    connection.Greet();
    connection.SendLease(BadLease(1));
    Lease empty = SomeLease(2);
    empty.positions.clear();
    connection.SendLease(empty);
    connection.SendLease(SomeLease(3));
    connection.Take([&] {
      return connection.released.size() == 2 && connection.results.contains(3) &&
             connection.results[3].positions_size() == 3;
    });
    released = connection.released;
    done.Notify();
    connection.TakeUntilEnd();
    return grpc::Status::OK;
  });
  Await(done);
  Stop();
  EXPECT_THAT(released, ElementsAre(1, 2));
}

TEST_F(PullWorkerTest, ABadLeaseHoldsUpNoOther) {
  // So long that the good lease's readings would never come if it waited.
  options_.min_backoff = options_.max_backoff = absl::Minutes(10);
  absl::Notification done;
  Start([&](int, Connection& connection) {
    connection.Greet();
    connection.SendLease(BadLease(1));
    connection.SendLease(SomeLease(2));
    connection.Take(
        [&] { return connection.results.contains(2) && connection.results[2].positions_size() == 3; });
    EXPECT_TRUE(connection.released.empty());
    done.Notify();
    connection.TakeUntilEnd();
    return grpc::Status::OK;
  });
  Await(done);
  Stop();
}

TEST_F(PullWorkerTest, BrokenStreamsAreOpenedAgain) {
  absl::Notification done;
  Start([&](int number, Connection& connection) {
    if (number == 0) return grpc::Status(grpc::StatusCode::INTERNAL, "refused");
    connection.Greet();
    if (number == 1) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going away");
    if (number == 2) {
      connection.SendLease(SomeLease(1));
      return grpc::Status::OK;
    }
    connection.SendLease(SomeLease(2));
    connection.Take([&] { return connection.results.contains(2); });
    done.Notify();
    connection.TakeUntilEnd();
    return grpc::Status::OK;
  });
  Await(done);
  Stop();
}

TEST_F(PullWorkerTest, StoppingGivesBackWhatIsHeld) {
  // The worker holds a bad lease back for so long that only stopping ends the wait.
  options_.min_backoff = options_.max_backoff = absl::Minutes(10);
  absl::Notification ended;
  std::set<int64_t> released;
  Start([&](int, Connection& connection) {
    connection.Greet();
    connection.SendLease(SomeLease(1));
    connection.SendLease(BadLease(2));
    connection.Take(
        [&] { return connection.results.contains(1) && connection.results[1].positions_size() == 3; });
    EXPECT_TRUE(Eventually([this] { return BadLeaseCount() == 1; }));
    worker_->Stop();
    connection.TakeUntilEnd();
    released = connection.released;
    ended.Notify();
    return grpc::Status::OK;
  });
  Await(ended);
  thread_.join();
  EXPECT_TRUE(status_.ok()) << status_;
  EXPECT_THAT(released, ElementsAre(2));
}

TEST_F(PullWorkerTest, StoppingAmongResultsLeavesBeforeItGivesBack) {
  absl::Notification ended;
  std::set<int64_t> released, on_leaving;
  int answered = 0;
  Start([&](int, Connection& connection) {
    connection.Greet();
    // Half a second of work, each position a message.
    Lease lease = SomeLease(1, 5000);
    std::fill(lease.target_ids.begin(), lease.target_ids.end(), 1);
    connection.SendLease(lease);
    connection.Take([&] { return !connection.results.empty(); });
    worker_->Stop();
    connection.TakeUntilEnd();
    released = connection.released;
    on_leaving = connection.released_on_leaving;
    for (const auto& [id, readings] : connection.results) answered += readings.positions_size();
    ended.Notify();
    return grpc::Status::OK;
  });
  Await(ended);
  thread_.join();
  EXPECT_TRUE(status_.ok()) << status_;
  EXPECT_LT(answered, 5000) << "it stopped long before the end";
  EXPECT_THAT(released, ElementsAre(1));
  EXPECT_EQ(on_leaving, released) << "capture would count them against the rows";
}

TEST_F(PullWorkerTest, ASilentCaptureIsNotConnected) {
  options_.hello_timeout = absl::Milliseconds(50);
  std::atomic<int> streams = 0;
  absl::Notification third;
  Start([&](int number, Connection& connection) {
    if (++streams == 3) third.Notify();
    connection.TakeUntilEnd();
    return grpc::Status::OK;
  });
  Await(third);
  EXPECT_FALSE(worker_->connected());
  Stop();
}

TEST_F(PullWorkerTest, StopsWhileNobodyListens) {
  StartWorker("127.0.0.1:1");
  EXPECT_FALSE(worker_->connected());
  Stop();
}

TEST(LeaseStream, AnUnreachableCaptureIsUnavailable) {
  const auto stream =
      LeaseStream::Open(MakeChannel("127.0.0.1:1"), {"d", std::string(32, 'd'), 1 << 20}, absl::Seconds(20));
  EXPECT_TRUE(absl::IsUnavailable(stream.status())) << stream.status();
}

}  // namespace
}  // namespace sextant
