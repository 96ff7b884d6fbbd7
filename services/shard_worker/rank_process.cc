// Implements the life of a rank process.
#include "services/shard_worker/rank_process.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/collective/errors.h"
#include "common/metrics/http_server.h"
#include "common/metrics/metrics.h"
#include "common/model/model_digest.h"
#include "common/rpc/server.h"
#include "common/tokenizer/tokenizer.h"
#include "kernels/status_macros.h"
#include "services/shard_worker/engine.h"
#include "services/shard_worker/errors.h"
#include "services/shard_worker/follower.h"
#include "services/shard_worker/group_plan.h"
#include "services/shard_worker/load_deadline.h"
#include "services/shard_worker/rank_parts.h"
#include "services/shard_worker/worker_metrics.h"
#include "services/shard_worker/worker_service.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

// How long the last statuses may take to reach their callers when the group was lost.
constexpr absl::Duration kFarewell = absl::Milliseconds(300);
// How often main looks whether the group was lost.
constexpr absl::Duration kLostLook = absl::Milliseconds(50);
// Between looks at the other ranks while they load.
constexpr absl::Duration kLoadLook = absl::Milliseconds(20);
// For ranks that have loaded to compare digests that they have computed.
constexpr absl::Duration kCompareTimeout = absl::Minutes(2);

pb::GetEngineResponse Describe(const WorkerConfig& config, const RankParts& parts,
                               const ModelDigest& digest) {
  const ModelSpec& spec = parts.source->spec();
  pb::GetEngineResponse engine;
  sextant::v1::Model& model = *engine.mutable_model();
  model.set_name(config.engine);
  model.set_family(spec.family);
  model.set_layer_count(static_cast<int32_t>(spec.layer_count));
  model.set_hidden_size(static_cast<int32_t>(spec.hidden_size));
  model.set_vocab_size(static_cast<int32_t>(spec.vocab_size));
  model.set_head_count(static_cast<int32_t>(spec.head_count));
  model.set_kv_head_count(static_cast<int32_t>(spec.kv_head_count));
  model.set_head_dim(static_cast<int32_t>(spec.head_dim));
  model.set_feed_forward_size(static_cast<int32_t>(spec.feed_forward_size));
  const EngineLimits& limits = parts.limits;
  const int64_t positions = std::min<int64_t>(
      limits.max_positions, static_cast<int64_t>(limits.kv_block_count) * limits.kv_block_size);
  model.set_max_position_count(static_cast<int32_t>(positions));
  model.set_tensor_parallel_size(config.rank_count);
  const auto dtype = config.dtype == DType::kF32 ? sextant::v1::DTYPE_F32 : sextant::v1::DTYPE_BF16;
  model.set_dtype(dtype);
  model.set_weights_sha256(digest.weights_sha256);
  model.set_lens_sha256(absl::BytesToHexString(digest.lens_digest));
  for (const int32_t id : spec.eos_token_ids) model.add_eos_token_ids(id);
  model.set_epoch(config.epoch);
  engine.set_engine(config.engine);
  engine.set_epoch(config.epoch);
  engine.set_model_path(config.model);
  engine.set_max_prompt_token_count(static_cast<int32_t>(positions));
  engine.set_max_new_token_count(static_cast<int32_t>(positions));
  engine.set_max_position_bytes(limits.ring_slot_count * RingSlotBytes(limits));
  engine.set_row_dtype(dtype);
  return engine;
}

// Waits until every rank has loaded. GROUP_LOST when one of them cannot, CANCELLED at SIGTERM.
absl::Status WaitForRanks(const PlanChannel& channel, ShutdownSignal& shutdown) {
  for (int rank = 1; rank < channel.size(); ++rank) {
    while (channel.Reported(rank, ReportWord::kReady) == 0) {
      if (channel.aborted()) return GroupLostError();
      if (shutdown.WaitFor(kLoadLook)) return worker_errors::Cancelled();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<HttpServer>> StartHttp(const WorkerConfig& config,
                                                      std::shared_ptr<prometheus::Registry> metrics,
                                                      const std::atomic<bool>& ready) {
  const int port = config.http_port == 0 ? 0 : config.http_port + config.rank;
  return HttpServer::Start(config.host, port, std::move(metrics),
                           [&ready] { return ready ? absl::OkStatus() : worker_errors::Loading(); });
}

// Ranks other than the leader: do what plans say until one says that it is the last.
absl::Status Follow(const WorkerConfig& config, RankParts& parts, LoadDeadline& load_deadline) {
  std::atomic<bool> ready = false;
  const auto registry = MakeMetricsRegistry("shard_worker");
  RankMetrics metrics(*registry, config.epoch, config.restart_count, config.rank);
  SEXTANT_ASSIGN_OR_RETURN(const auto http, StartHttp(config, registry, ready));
  SEXTANT_RETURN_IF_ERROR(LoadRank(config, {}, nullptr, parts));
  // The weights were just read, so that hashing finds them in the page cache.
  ModelDigest digest;
  if (config.node_count > 1 && config.rank == RanksBefore(config, config.node)) {
    SEXTANT_ASSIGN_OR_RETURN(digest, DigestModel(*parts.source, config.digest_cache_dir));
  }
  http->SetBeforeScrape([&metrics, &parts] { metrics.Update(*parts.ring, *parts.outbox); });
  parts.link = std::make_unique<CaptureLink>(*parts.outbox);
  parts.channel->Report(ReportWord::kReady, 1);
  if (config.node_count > 1) {
    // No deadline but the others' own for loading. A rank that is lost ends the wait by an abort.
    SEXTANT_RETURN_IF_ERROR(
        CheckSameWeights(*parts.channel, digest.weights_sha256, absl::InfiniteDuration()));
  }
  load_deadline.Meet();
  ready = true;
  const absl::Status status = FollowPlans(*parts.channel, *parts.executor, config.epoch);
  if (!RankRefused(status)) return status;
  // What served once can serve again: the group starts anew, as when the leader's own step fails.
  LogError("a step failed", {{"rank", config.rank}, {"status", status}});
  return GroupLostError();
}

// The leader. Its engine is made when the model is there; answers of the capture service come only after
// that.
class Leader {
 public:
  Leader(const WorkerConfig& config, RankParts& parts, ShutdownSignal& shutdown, LoadDeadline& load_deadline)
      : config_(config), parts_(parts), shutdown_(shutdown), load_deadline_(load_deadline) {}

  absl::Status Run() {
    // Listening comes first, so that a port that is taken is known before minutes of loading.
    const auto metrics = MakeMetricsRegistry("shard_worker");
    RankMetrics rank_metrics(*metrics, config_.epoch, config_.restart_count, config_.rank);
    SEXTANT_ASSIGN_OR_RETURN(const auto http, StartHttp(config_, metrics, ready_));
    SEXTANT_ASSIGN_OR_RETURN(const auto server,
                             RpcServer::Start({.host = config_.host,
                                               .port = config_.port,
                                               .max_receive_bytes = kMaxRequestBytes,
                                               .max_concurrent_streams = kMaxGatewayCalls,
                                               .metrics = metrics},
                                              {{pb::WorkerService::service_full_name(), &handler_}}));
    SEXTANT_RETURN_IF_ERROR(Load(*metrics));
    http->SetBeforeScrape([this, &rank_metrics] { rank_metrics.Update(*parts_.ring, *parts_.outbox); });
    // Before waiting, so that hosts hash at the same time.
    SEXTANT_ASSIGN_OR_RETURN(const ModelDigest digest, DigestModel(*parts_.source, config_.digest_cache_dir));
    SEXTANT_RETURN_IF_ERROR(WaitForRanks(*parts_.channel, shutdown_));
    if (config_.node_count > 1) {
      SEXTANT_RETURN_IF_ERROR(CheckSameWeights(*parts_.channel, digest.weights_sha256, kCompareTimeout));
    }
    load_deadline_.Meet();
    engine_->Start([this](const absl::Status& status) { lost_ = true; });
    parts_.link = std::make_unique<CaptureLink>(*parts_.outbox);
    const pb::GetEngineResponse description = Describe(config_, parts_, digest);
    AddModelInfo(*metrics, description.model());
    handler_.Serve(*engine_, description);
    server->SetReady(true);
    ready_ = true;
    LogInfo("serving", {{"port", server->port()}, {"http_port", http->port()}, {"epoch", config_.epoch}});
    while (!lost_ && !shutdown_.WaitFor(kLostLook)) {
    }
    ready_ = false;
    server->SetReady(false);
    if (!lost_) engine_->Drain(config_.drain);
    server->Drain(kFarewell);
    parts_.link.reset();
    return lost_ ? GroupLostError() : absl::OkStatus();
  }

 private:
  // 64 interventions of every layer of a large model would be more; such vectors are stored, and applied in
  // turns.
  static constexpr int kMaxRequestBytes = 64 << 20;

  absl::Status Load(prometheus::Registry& metrics) {
    CaptureAnswers answers;
    answers.on_credit = [this](const std::string& capture, int64_t total) {
      engine_->OnCredit(capture, total);
    };
    answers.on_sealed = [this](const std::string& capture) { engine_->OnSealed(capture); };
    answers.on_gone = [this](const std::string& capture, const std::string& reason) {
      engine_->OnGone(capture, reason);
    };
    SEXTANT_RETURN_IF_ERROR(LoadRank(
        config_, std::move(answers),
        [this] {
          if (engine_) engine_->Wake();
        },
        parts_));
    if (auto tokenizer = Tokenizer::FromModel(config_.model); tokenizer.ok()) {
      tokenizer_ = *std::move(tokenizer);
    } else {
      LogWarning("stop strings will be refused", {{"status", tokenizer.status()}});
      parts_.limits.stop_strings = false;
    }
    leader_metrics_ = std::make_unique<LeaderMetrics>(metrics, parts_.limits);
    SchedulerDeps deps;
    deps.on_finished = [this](const RequestTimes& times) { leader_metrics_->CountRequest(times); };
    deps.clock = &parts_.clock;
    deps.capture = parts_.outbox.get();
    deps.token_bytes = [this](int32_t id) { return std::string(tokenizer_->TokenBytes(id)); };
    deps.released_slots = [channel = parts_.channel.get()](int rank) {
      return channel->Reported(rank, ReportWord::kReleasedSlots);
    };
    EngineObserver observer;
    observer.on_step = [this](const StepReport& report) { leader_metrics_->CountStep(report); };
    observer.on_counts = [this](const SchedulerCounts& counts, const PhaseTimes& phases) {
      leader_metrics_->SetCounts(counts, phases);
    };
    engine_ = std::make_unique<Engine>(
        std::make_unique<Scheduler>(parts_.limits, config_.epoch, std::move(deps)), parts_.limits,
        *parts_.channel, *parts_.executor, config_.step_deadline, std::move(observer));
    return absl::OkStatus();
  }

  const WorkerConfig& config_;
  RankParts& parts_;
  ShutdownSignal& shutdown_;
  LoadDeadline& load_deadline_;
  std::atomic<bool> ready_ = false;
  std::atomic<bool> lost_ = false;
  // For stop strings; null when the model has none that is understood.
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<LeaderMetrics> leader_metrics_;
  std::unique_ptr<Engine> engine_;
  WorkerServiceHandler handler_;
};

}  // namespace

absl::Status RunRank(const WorkerConfig& config, ShutdownSignal& shutdown) {
  RankParts parts;
  LoadDeadline load_deadline(config.load_deadline);
  SEXTANT_RETURN_IF_ERROR(JoinGroup(config, parts));
  const absl::Status status = config.rank == 0 ? Leader(config, parts, shutdown, load_deadline).Run()
                                               : Follow(config, parts, load_deadline);
  // A rank that cannot go on must not leave the others waiting for it.
  if (!status.ok()) parts.channel->Abort();
  return status;
}

bool RankRefused(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return !status.ok() && reason != "GROUP_LOST" && reason != "STEP_DEADLINE" && reason != "CANCELLED";
}

}  // namespace sextant
