// One Generate call: opens its capture, forwards tokens and readings, ends when both are complete.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/rpc/call_ids.h"
#include "grpcpp/server_context.h"
#include "services/gateway/capture_lifetime.h"
#include "services/gateway/event_writer.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/generate_plan.h"
#include "services/gateway/peers.h"
#include "services/gateway/readings_follower.h"
#include "services/gateway/text_stream.h"

namespace sextant {

struct GenerateOptions {
  // For Open and Close, and for the log's end once all its entries are here.
  absl::Duration open_timeout = absl::Seconds(5);
  // How long a broken log of readings is sought again.
  absl::Duration follow_patience = absl::Seconds(10);
  int max_attempts = 3;
};

// Uses the handler's thread for tokens and, with a capture, one more that follows it. Threads: Run from one.
class GenerateCall {
 public:
  // All must outlive this object. `server` is the client's call; `writer` sends its events.
  GenerateCall(Peers& peers, GatewayMetrics& metrics, const GenerateOptions& options,
               const grpc::ServerContext& server, EventWriter& writer, CallIds ids);

  // Runs the generation to its end. The status is the call's. Repeats on another worker when one is lost
  // before anything was forwarded.
  absl::Status Run(const GeneratePlan& plan, const ServedModel& model);

 private:
  // The state of one attempt.
  struct Attempt {
    explicit Attempt(const GeneratePlan& plan, const Tokenizer& tokenizer) : text(tokenizer, plan.stops) {}
    std::unique_ptr<grpc::ClientContext> worker_context;
    std::unique_ptr<CaptureLifetime> capture;
    TextStream text;
    std::optional<PromptLogprobs> prompt_logprobs;  // of the follower's thread until it has ended
    absl::Notification worker_ended;                // its status is known
    std::unique_ptr<ReadingsFollower> follower;     // destroyed first: its thread uses the others
    std::optional<v1::Finished> finished;
    int32_t generated_count = 0;
    int32_t lens_position_count = 0;
    bool said_not_finite = false;  // of the follower's thread
  };

  absl::Status RunOn(const WorkerChoice& worker, const GeneratePlan& plan, const ServedModel& model);
  absl::Status OpenCapture(const WorkerChoice& worker, const GeneratePlan& plan, const ServedModel& model,
                           Attempt* attempt);
  // Follows the attempt's capture, so that it is held and, with a lens, read.
  void StartFollower(const GeneratePlan& plan, Attempt* attempt);
  void SetOpening(const GeneratePlan& plan, const ServedModel& model, const Attempt& attempt);
  // Reads the worker's stream to its end.
  absl::Status ForwardTokens(const WorkerChoice& worker, const GeneratePlan& plan, const ServedModel& model,
                             Attempt* attempt);
  bool ForwardToken(const internal::v1::Token& token, Attempt* attempt);
  // Makes the client's `finished` of the worker's; sends it unless prompt log-probabilities are still to
  // come.
  bool TakeFinished(const internal::v1::Finished& finished, const GeneratePlan& plan,
                    const ServedModel& model, Attempt* attempt);
  // Waits for the readings that are still out, after the worker has said OK.
  absl::Status AwaitReadings(const GeneratePlan& plan, Attempt* attempt);
  bool SendFinished(const v1::Finished& finished);

  Peers& peers_;
  GatewayMetrics& metrics_;
  const GenerateOptions options_;
  const grpc::ServerContext& server_;
  EventWriter& writer_;
  const CallIds ids_;
  const absl::Time start_;
  absl::Time last_token_ = absl::InfinitePast();
  bool said_no_decoder_ = false;
};

}  // namespace sextant
