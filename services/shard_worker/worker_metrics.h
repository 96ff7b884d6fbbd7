// What a rank of the shard worker counts.
#pragma once

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "services/shard_worker/engine.h"

namespace sextant {

// The leader's. Threads: one at a time.
class LeaderMetrics {
 public:
  LeaderMetrics(prometheus::Registry& registry, const EngineLimits& limits);

  void CountStep(const StepReport& report);
  void SetCounts(const SchedulerCounts& counts);

 private:
  prometheus::Gauge& AddGauge(prometheus::Registry& registry, const char* name, const char* help);
  prometheus::Counter& AddCounter(prometheus::Registry& registry, const char* name, const char* help);

  const int64_t ring_slot_bytes_;
  SchedulerCounts last_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& running_;
  prometheus::Gauge& sealing_;
  prometheus::Gauge& waiting_for_capture_;
  prometheus::Gauge& kv_blocks_used_;
  prometheus::Gauge& kv_blocks_;
  prometheus::Gauge& ring_used_bytes_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& recorded_positions_;
  prometheus::Counter& recorded_bytes_;
  prometheus::Histogram& step_seconds_;
  prometheus::Histogram& batch_rows_;
};

// Every rank's: which life of the group this is.
void AddGroupMetrics(prometheus::Registry& registry, int64_t epoch, int64_t restart_count, int rank);

}  // namespace sextant
