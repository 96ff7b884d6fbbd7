// What a rank of the shard worker counts.
#pragma once

#include "common/metrics/metrics.h"
#include "services/shard_worker/capture_outbox.h"
#include "services/shard_worker/capture_ring.h"
#include "services/shard_worker/engine.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

// Every rank's. Threads: one at a time.
class RankMetrics {
 public:
  RankMetrics(prometheus::Registry& registry, int64_t epoch, int64_t restart_count, int rank);

  void Update(const CaptureRing& ring, const CaptureOutbox& outbox);

 private:
  OutboxCounts last_;
  prometheus::Gauge& ring_used_bytes_;
  prometheus::Gauge& ring_bytes_;
  prometheus::Gauge& connected_;
  prometheus::Counter& connections_;
  prometheus::Counter& sent_chunks_;
  prometheus::Counter& sent_bytes_;
};

// The leader's. Threads: one at a time.
class LeaderMetrics {
 public:
  LeaderMetrics(prometheus::Registry& registry, const EngineLimits& limits);

  void CountStep(const StepReport& report);
  void CountRequest(const RequestTimes& times);
  void SetCounts(const SchedulerCounts& counts, const PhaseTimes& phases);

 private:
  struct Phase {
    prometheus::Counter& seconds;
    absl::Duration PhaseTimes::*time;
  };

  SchedulerCounts last_;
  PhaseTimes last_phases_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& running_;
  prometheus::Gauge& sealing_;
  prometheus::Gauge& waiting_for_capture_;
  prometheus::Gauge& kv_blocks_used_;
  prometheus::Gauge& kv_blocks_;
  prometheus::Gauge& kv_cache_usage_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& recorded_positions_;
  prometheus::Counter& recorded_bytes_;
  prometheus::Histogram& step_seconds_;
  prometheus::Histogram& batch_rows_;
  prometheus::Histogram& batch_sequences_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& prefill_seconds_;
  prometheus::Histogram& decode_seconds_;
  const std::vector<Phase> phases_;
};

// Says which model is served.
void AddModelInfo(prometheus::Registry& registry, const sextant::v1::Model& model);

}  // namespace sextant
