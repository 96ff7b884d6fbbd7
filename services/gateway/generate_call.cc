// One Generate call: opens its capture, forwards tokens and readings, ends when both are complete.
#include "services/gateway/generate_call.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {

// How long a worker may take to say why it ends once following has failed: what took the capture away has
// often taken the worker too, and only its own status tells whether the request may be repeated.
constexpr absl::Duration kLastWord = absl::Milliseconds(500);

bool IsLostWorker(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return absl::IsUnavailable(status) &&
         (reason == "GROUP_LOST" || reason == "LOADING" || reason == "DRAINING");
}

v1::Statistics StatisticsOf(const internal::v1::Finished& finished, int32_t prompt_count,
                            int32_t generated_count) {
  v1::Statistics statistics;
  statistics.set_prompt_token_count(prompt_count);
  statistics.set_generated_token_count(generated_count);
  statistics.set_recorded_position_count(finished.recorded_position_count());
  statistics.set_lens_position_count(finished.lens_position_count());
  *statistics.mutable_touched_row_counts() = finished.touched_row_counts();
  statistics.set_queue_ns(finished.queue_ns());
  statistics.set_prefill_ns(finished.prefill_ns());
  statistics.set_decode_ns(finished.decode_ns());
  statistics.set_captured_bytes(finished.captured_bytes());
  return statistics;
}

v1::Warning NoLensDecoder(absl::Duration lens_wait) {
  v1::Warning warning;
  warning.set_reason("NO_LENS_DECODER");
  warning.set_message(
      absl::StrCat("no lens decoder is connected, so no reading can come yet; start one (deploy/local/scale "
                   "--decoders 1, or lens_decoder). This call waits for readings ",
                   absl::FormatDuration(lens_wait), " after its last token"));
  return warning;
}

// Whether a row of `readings` is no number, as rows are that overflowed.
bool HoldsNoNumbers(const v1::Readings& readings) {
  const std::string& entropies = readings.entropy_nats();
  for (size_t at = 0; at + sizeof(float) <= entropies.size(); at += sizeof(float)) {
    float entropy;
    std::memcpy(&entropy, entropies.data() + at, sizeof entropy);
    if (!std::isfinite(entropy)) return true;
  }
  return false;
}

v1::GenerateResponse NotFinite(const v1::Readings& readings) {
  v1::GenerateResponse event;
  event.mutable_warning()->set_reason("READINGS_NOT_FINITE");
  event.mutable_warning()->set_message(
      absl::StrCat("rows of position ", readings.positions(0),
                   " or near it are no finite numbers, and so are their readings; a steering strength may "
                   "be too large"));
  return event;
}

v1::GenerateResponse TouchedNothing(int intervention) {
  v1::GenerateResponse event;
  event.mutable_warning()->set_reason("INTERVENTION_TOUCHED_NOTHING");
  event.mutable_warning()->set_message(
      absl::StrCat("intervention ", intervention, " touched no row: its positions did not come up"));
  return event;
}

}  // namespace

GenerateCall::GenerateCall(Peers& peers, GatewayMetrics& metrics, const GenerateOptions& options,
                           const grpc::ServerContext& server, EventWriter& writer, CallIds ids)
    : peers_(peers),
      metrics_(metrics),
      options_(options),
      server_(server),
      writer_(writer),
      ids_(std::move(ids)),
      start_(absl::Now()) {}

absl::Status GenerateCall::Run(const GeneratePlan& plan, const ServedModel& model) {
  std::vector<size_t> tried;
  absl::Status status;
  while (true) {
    const absl::StatusOr<WorkerChoice> worker = peers_.PickWorker(tried);
    // With no worker left, what the last one said is what happened.
    if (!worker.ok()) return tried.empty() ? worker.status() : status;
    if (!tried.empty()) metrics_.Repeated();
    tried.push_back(worker->index);
    status = RunOn(*worker, plan, model);
    const bool may_repeat = IsLostWorker(status) && !writer_.started() && !server_.IsCancelled() &&
                            static_cast<int>(tried.size()) < options_.max_attempts;
    if (!may_repeat) return status;
    LogWarning("worker lost before its first event",
               {{"request_id", ids_.request_id}, {"trace_id", ids_.trace.trace_id}, {"status", status}});
  }
}

absl::Status GenerateCall::RunOn(const WorkerChoice& worker, const GeneratePlan& plan,
                                 const ServedModel& model) {
  Attempt attempt(plan, *model.tokenizer);
  // Ends with the client's call: cancellation and deadline come from there.
  attempt.worker_context = grpc::ClientContext::FromServerContext(server_);
  SetCallIds(*attempt.worker_context, ids_);
  if (plan.capture.has_value()) {
    SEXTANT_RETURN_IF_ERROR(OpenCapture(worker, plan, model, &attempt));
    if (server_.IsCancelled()) return ClientGone();
  }
  SetOpening(plan, model, attempt);
  if (plan.capture.has_value()) StartFollower(plan, &attempt);
  SEXTANT_RETURN_IF_ERROR(ForwardTokens(worker, plan, model, &attempt));
  if (plan.capture.has_value() && plan.capture->has_lens()) return AwaitReadings(plan, &attempt);
  return absl::OkStatus();
}

absl::Status GenerateCall::OpenCapture(const WorkerChoice& worker, const GeneratePlan& plan,
                                       const ServedModel& model, Attempt* attempt) {
  const CaptureOpening opening = {.engine = worker.engine,
                                  .ids = ids_,
                                  .model = model.model().name(),
                                  .model_sha256 = model.model().weights_sha256(),
                                  .prompt_ids = plan.prompt_ids};
  SEXTANT_ASSIGN_OR_RETURN(attempt->capture, CaptureLifetime::Open(peers_.capture(), *plan.capture, opening,
                                                                   options_.open_timeout));
  return absl::OkStatus();
}

void GenerateCall::SetOpening(const GeneratePlan& plan, const ServedModel& model, const Attempt& attempt) {
  v1::Started started;
  started.set_request_id(ids_.request_id);
  if (attempt.capture != nullptr) started.set_capture(CaptureName(attempt.capture->id()));
  started.mutable_prompt_token_ids()->Assign(plan.prompt_ids.begin(), plan.prompt_ids.end());
  for (const int32_t id : plan.prompt_ids) started.add_prompt_token_texts(model.tokenizer->TextOf(id));
  if (plan.capture.has_value()) {
    for (int i = 0; i < plan.capture->client_row_count; ++i) {
      const internal::v1::RowKey& row = plan.capture->spec.rows(plan.capture->spec.lens().row_indices(i));
      started.add_lens_sites(row.site());
      started.add_lens_layers(row.layer());
    }
  }
  std::vector<v1::Warning> warnings = plan.warnings;
  if (plan.capture.has_value() && plan.capture->has_lens() && !peers_.HasLensDecoder()) {
    said_no_decoder_ = true;
    warnings.push_back(NoLensDecoder(plan.lens_wait));
  }
  writer_.SetOpening(std::move(started), std::move(warnings));
}

void GenerateCall::StartFollower(const GeneratePlan& plan, Attempt* attempt) {
  if (plan.capture->prompt_logprob_row >= 0) {
    attempt->prompt_logprobs.emplace(static_cast<int32_t>(plan.prompt_ids.size()),
                                     plan.capture->prompt_logprob_row);
  }
  grpc::ClientContext* worker_context = attempt->worker_context.get();
  ReadingsFollower::Callbacks callbacks;
  callbacks.on_readings = [this, &plan, attempt, worker_context](v1::Readings readings) {
    if (attempt->prompt_logprobs.has_value()) attempt->prompt_logprobs->Add(readings);
    v1::GenerateResponse event;
    *event.mutable_readings() = plan.view->Of(std::move(readings));
    if (event.readings().positions().empty()) return true;
    metrics_.ReadingsForwarded(event.readings().positions_size());
    const bool warn = !attempt->said_not_finite && HoldsNoNumbers(event.readings());
    attempt->said_not_finite |= warn;
    if ((!warn || writer_.Write(NotFinite(event.readings()))) && writer_.Write(event)) return true;
    worker_context->TryCancel();
    return false;
  };
  // Without its readings the generation is of no use: it ends now.
  callbacks.on_failure = [attempt, worker_context](const absl::Status&) {
    if (!attempt->worker_ended.WaitForNotificationWithTimeout(kLastWord)) worker_context->TryCancel();
  };
  if (!plan.capture->has_lens()) {
    // There is nothing to read, but following holds the capture while the request waits for its turn. Should
    // the capture be lost, the worker learns of it and says so.
    callbacks.on_readings = [](const v1::Readings&) { return true; };
    callbacks.on_failure = [](const absl::Status&) {};
  }
  attempt->follower =
      std::make_unique<ReadingsFollower>(peers_.capture(), server_, attempt->capture->id(), ids_,
                                         options_.follow_patience, std::move(callbacks));
}

absl::Status GenerateCall::ForwardTokens(const WorkerChoice& worker, const GeneratePlan& plan,
                                         const ServedModel& model, Attempt* attempt) {
  internal::v1::GenerateRequest request = plan.worker_request;
  request.set_request_id(ids_.request_id);
  if (attempt->capture != nullptr) {
    request.set_capture(attempt->capture->id());
    request.set_capture_address(peers_.capture_address());
  }
  const auto reader = worker.stub->Generate(attempt->worker_context.get(), request);
  internal::v1::GenerateResponse event;
  bool client_there = true;
  while (client_there && reader->Read(&event)) {
    if (event.has_token()) client_there = ForwardToken(event.token(), attempt);
    if (event.has_finished()) client_there = TakeFinished(event.finished(), plan, model, attempt);
  }
  if (!client_there) attempt->worker_context->TryCancel();
  const grpc::Status status = reader->Finish();
  attempt->worker_ended.Notify();
  if (server_.IsCancelled() || !client_there) {
    // A deadline cancels the server's side as well; the client's own library names it.
    return ClientGone();
  }
  // The follower has cancelled the worker: its reason is the call's.
  if (attempt->follower != nullptr && status.error_code() == grpc::StatusCode::CANCELLED)
    SEXTANT_RETURN_IF_ERROR(attempt->follower->status());
  SEXTANT_RETURN_IF_ERROR(StatusOfPeer(status, Peer::kWorker));
  if (!attempt->finished.has_value()) {
    return MakeError(absl::StatusCode::kInternal, "WORKER_PROTOCOL", "the worker ended without `finished`");
  }
  return absl::OkStatus();
}

bool GenerateCall::ForwardToken(const internal::v1::Token& token, Attempt* attempt) {
  const absl::Time now = absl::Now();
  if (last_token_ == absl::InfinitePast()) {
    metrics_.FirstToken(now - start_);
  } else {
    metrics_.NextToken(now - last_token_);
  }
  last_token_ = now;
  metrics_.GeneratedToken();
  v1::GenerateResponse event;
  event.mutable_token()->set_index(token.index());
  event.mutable_token()->set_id(token.id());
  event.mutable_token()->set_logprob(token.logprob());
  event.mutable_token()->set_text(attempt->text.Push(token.id()));
  ++attempt->generated_count;
  return writer_.Write(event);
}

bool GenerateCall::TakeFinished(const internal::v1::Finished& finished, const GeneratePlan& plan,
                                const ServedModel& model, Attempt* attempt) {
  attempt->lens_position_count = finished.lens_position_count();
  v1::Finished& event = attempt->finished.emplace();
  event.set_reason(finished.reason());
  if (!finished.stop().empty()) {
    event.set_stop(finished.stop());
  } else if (finished.reason() == v1::FINISH_REASON_STOP) {
    event.set_stop(model.tokenizer->TextOf(finished.stop_token_id()));
  }
  event.set_text(attempt->text.Finish());
  *event.mutable_statistics() =
      StatisticsOf(finished, static_cast<int32_t>(plan.prompt_ids.size()), attempt->generated_count);
  if (attempt->prompt_logprobs.has_value()) return true;
  if (plan.wants_prompt_logprobs) event.mutable_statistics()->add_prompt_logprobs(std::nanf(""));
  return SendFinished(event);
}

bool GenerateCall::SendFinished(const v1::Finished& finished) {
  const auto& touched = finished.statistics().touched_row_counts();
  for (int i = 0; i < touched.size(); ++i) {
    if (touched[i] == 0 && !writer_.Write(TouchedNothing(i))) return false;
  }
  v1::GenerateResponse event;
  *event.mutable_finished() = finished;
  return writer_.Write(event);
}

absl::Status GenerateCall::AwaitReadings(const GeneratePlan& plan, Attempt* attempt) {
  // The last decoder may have gone since the call began.
  if (attempt->follower->received() < attempt->lens_position_count && !said_no_decoder_ &&
      !peers_.HasLensDecoder()) {
    v1::GenerateResponse event;
    *event.mutable_warning() = NoLensDecoder(plan.lens_wait);
    if (!writer_.Write(event)) return ClientGone();
  }
  bool ended = attempt->follower->WaitForEnd(absl::Now() + plan.lens_wait);
  const int64_t received = attempt->follower->received();
  const int64_t missing = attempt->lens_position_count - received;
  // With every entry here the log's end is due: only it tells how many of them failed.
  if (!ended && missing <= 0) ended = attempt->follower->WaitForEnd(absl::Now() + options_.open_timeout);
  const absl::Status status = attempt->follower->status();
  const int64_t failed = attempt->follower->failed();
  // Joins its thread: what it filled in is this thread's from here on.
  attempt->follower.reset();
  if (server_.IsCancelled()) return ClientGone();
  SEXTANT_RETURN_IF_ERROR(status);
  if (!ended && missing <= 0) {
    return Unavailable("CAPTURE_UNREACHABLE",
                       "the capture service did not say whether every reading is good; try again");
  }
  if (ended && (failed > 0 || missing > 0)) return ReadingsLost(failed + std::max<int64_t>(0, missing));
  v1::Finished& finished = *attempt->finished;
  if (attempt->prompt_logprobs.has_value()) {
    const std::vector<float>& values = attempt->prompt_logprobs->values();
    finished.mutable_statistics()->mutable_prompt_logprobs()->Assign(values.begin(), values.end());
  }
  if (missing > 0) {
    attempt->capture->Leave();
    metrics_.ReadingsMissing(missing);
    finished.mutable_statistics()->set_missing_reading_count(static_cast<int32_t>(missing));
  }
  // The client has `finished` already, unless it waited for the prompt's log-probabilities or has to be said
  // again.
  if (!attempt->prompt_logprobs.has_value() && missing == 0) return absl::OkStatus();
  return SendFinished(finished) ? absl::OkStatus() : ClientGone();
}

}  // namespace sextant
