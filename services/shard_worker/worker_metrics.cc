// Implements the shard worker's metrics.
#include "services/shard_worker/worker_metrics.h"

#include "common/metrics/metrics.h"

namespace sextant {

prometheus::Gauge& LeaderMetrics::AddGauge(prometheus::Registry& registry, const char* name,
                                           const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Counter& LeaderMetrics::AddCounter(prometheus::Registry& registry, const char* name,
                                               const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

LeaderMetrics::LeaderMetrics(prometheus::Registry& registry, const EngineLimits& limits)
    : ring_slot_bytes_(RingSlotBytes(limits)),
      waiting_(AddGauge(registry, "sextant_worker_waiting_sequences",
                        "Requests that wait for a slot, for KV blocks or for their capture's first credit.")),
      running_(
          AddGauge(registry, "sextant_worker_running_sequences", "Sequences being prefilled or decoded.")),
      sealing_(
          AddGauge(registry, "sextant_worker_sealing_sequences",
                   "Sequences whose tokens are out and whose rows are on their way to the capture service.")),
      waiting_for_capture_(AddGauge(registry, "sextant_worker_capture_waiting_sequences",
                                    "Sequences that wait for the capture service and nothing else.")),
      kv_blocks_used_(AddGauge(registry, "sextant_worker_kv_blocks_used", "KV blocks held by sequences.")),
      kv_blocks_(AddGauge(registry, "sextant_worker_kv_blocks", "KV blocks in all.")),
      ring_used_bytes_(AddGauge(registry, "sextant_worker_ring_used_bytes",
                                "Bytes of recorded rows in the fullest rank's ring.")),
      prompt_tokens_(AddCounter(registry, "sextant_worker_prompt_tokens_total", "Prompt tokens run.")),
      generated_tokens_(AddCounter(registry, "sextant_worker_generated_tokens_total", "Tokens sampled.")),
      recorded_positions_(
          AddCounter(registry, "sextant_worker_recorded_positions_total", "Positions recorded.")),
      recorded_bytes_(AddCounter(registry, "sextant_worker_recorded_bytes_total", "Bytes of rows recorded.")),
      step_seconds_(prometheus::BuildHistogram()
                        .Name("sextant_worker_step_seconds")
                        .Help("Time of a step, from its plan to its tokens.")
                        .Register(registry)
                        .Add({}, SecondsBuckets())),
      batch_rows_(prometheus::BuildHistogram()
                      .Name("sextant_worker_batch_rows")
                      .Help("Rows of a step.")
                      .Register(registry)
                      .Add({}, CountBuckets())) {
  kv_blocks_.Set(limits.kv_block_count);
}

void LeaderMetrics::CountStep(const StepReport& report) {
  step_seconds_.Observe(absl::ToDoubleSeconds(report.time));
  batch_rows_.Observe(static_cast<double>(report.rows));
}

void LeaderMetrics::SetCounts(const SchedulerCounts& counts) {
  waiting_.Set(static_cast<double>(counts.queued + counts.attaching));
  running_.Set(static_cast<double>(counts.running));
  sealing_.Set(static_cast<double>(counts.sealing));
  waiting_for_capture_.Set(static_cast<double>(counts.waiting_for_capture));
  kv_blocks_used_.Set(static_cast<double>(counts.kv_blocks_used));
  ring_used_bytes_.Set(static_cast<double>(counts.ring_slots_used * ring_slot_bytes_));
  prompt_tokens_.Increment(static_cast<double>(counts.prompt_tokens - last_.prompt_tokens));
  generated_tokens_.Increment(static_cast<double>(counts.generated_tokens - last_.generated_tokens));
  recorded_positions_.Increment(static_cast<double>(counts.recorded_positions - last_.recorded_positions));
  recorded_bytes_.Increment(static_cast<double>(counts.recorded_bytes - last_.recorded_bytes));
  last_ = counts;
}

void AddGroupMetrics(prometheus::Registry& registry, int64_t epoch, int64_t restart_count, int rank) {
  prometheus::BuildGauge()
      .Name("sextant_worker_epoch")
      .Help("Number of the group's present life, milliseconds since 1970 at its start.")
      .Register(registry)
      .Add({})
      .Set(static_cast<double>(epoch));
  prometheus::BuildGauge()
      .Name("sextant_worker_restarts")
      .Help("How often the group was started again after a rank was lost.")
      .Register(registry)
      .Add({})
      .Set(static_cast<double>(restart_count));
  prometheus::BuildGauge()
      .Name("sextant_worker_rank")
      .Help("This process's rank.")
      .Register(registry)
      .Add({})
      .Set(rank);
}

}  // namespace sextant
