// Implements the shard worker's metrics.
#include "services/shard_worker/worker_metrics.h"

#include "absl/strings/str_cat.h"

namespace sextant {
namespace {

prometheus::Counter& PhaseSeconds(prometheus::Registry& registry, const char* phase) {
  return AddCounter(registry, "sextant_worker_phase_seconds_total",
                    "Where the leader's loop spends its time: wait (nothing to do, or no credit), plan, "
                    "broadcast, execute (forward pass, steering, recording, sampling), finish.",
                    {{"phase", phase}});
}

}  // namespace

RankMetrics::RankMetrics(prometheus::Registry& registry, int64_t epoch, int64_t restart_count, int rank)
    : ring_used_bytes_(AddGauge(registry, "sextant_worker_ring_used_bytes",
                                "Bytes of recorded rows that the capture service has not acknowledged.")),
      ring_bytes_(
          AddGauge(registry, "sextant_worker_ring_bytes", "Bytes of recorded rows that fit the ring.")),
      connected_(AddGauge(registry, "sextant_worker_capture_connected",
                          "1 while the capture service has greeted this rank's stream. A rank connects with "
                          "its first captured request.")),
      connections_(
          AddCounter(registry, "sextant_worker_capture_connections_total",
                     "Streams that the capture service greeted; more than one a rank are reconnects.")),
      sent_chunks_(AddCounter(registry, "sextant_worker_capture_sent_chunks_total",
                              "Chunks sent to the capture service, repeats included.")),
      sent_bytes_(AddCounter(registry, "sextant_worker_capture_sent_bytes_total",
                             "Bytes of rows sent to the capture service, repeats included.")) {
  AddGauge(registry, "sextant_worker_epoch",
           "Number of the group's present life, milliseconds since 1970 at its start.")
      .Set(static_cast<double>(epoch));
  AddCounter(registry, "sextant_worker_group_restarts_total",
             "How often the group was started again after a rank was lost.")
      .Increment(static_cast<double>(restart_count));
  AddGauge(registry, "sextant_worker_rank", "This process's rank.").Set(rank);
}

void RankMetrics::Update(const CaptureRing& ring, const CaptureOutbox& outbox) {
  ring_used_bytes_.Set(static_cast<double>(ring.used_count() * ring.slot_bytes()));
  ring_bytes_.Set(static_cast<double>(ring.slot_count() * ring.slot_bytes()));
  const OutboxCounts counts = outbox.counts();
  connected_.Set(counts.connected ? 1 : 0);
  connections_.Increment(static_cast<double>(counts.connections - last_.connections));
  sent_chunks_.Increment(static_cast<double>(counts.sent_chunks - last_.sent_chunks));
  sent_bytes_.Increment(static_cast<double>(counts.sent_bytes - last_.sent_bytes));
  last_ = counts;
}

LeaderMetrics::LeaderMetrics(prometheus::Registry& r, const EngineLimits& limits)
    : waiting_(AddGauge(r, "sextant_worker_waiting_sequences",
                        "Requests that wait for a slot, for KV blocks or for their capture's first credit.")),
      running_(AddGauge(r, "sextant_worker_running_sequences", "Sequences being prefilled or decoded.")),
      sealing_(
          AddGauge(r, "sextant_worker_sealing_sequences",
                   "Sequences whose tokens are out and whose rows are on their way to the capture service.")),
      waiting_for_capture_(AddGauge(r, "sextant_worker_capture_waiting_sequences",
                                    "Sequences that wait for the capture service and nothing else.")),
      kv_blocks_used_(AddGauge(r, "sextant_worker_kv_blocks_used", "KV blocks held by sequences.")),
      kv_blocks_(AddGauge(r, "sextant_worker_kv_blocks", "KV blocks in all.")),
      kv_cache_usage_(
          AddGauge(r, "sextant_worker_kv_cache_usage_ratio", "Share of the KV blocks that sequences hold.")),
      prompt_tokens_(AddCounter(r, "sextant_worker_prompt_tokens_total", "Prompt tokens run.")),
      generated_tokens_(AddCounter(r, "sextant_worker_generated_tokens_total", "Tokens sampled.")),
      recorded_positions_(AddCounter(r, "sextant_worker_recorded_positions_total", "Positions recorded.")),
      recorded_bytes_(AddCounter(r, "sextant_worker_recorded_bytes_total", "Bytes of rows recorded.")),
      step_seconds_(AddHistogram(r, "sextant_worker_step_seconds",
                                 "Time of a step, from its plan to its tokens.", SecondsBuckets())),
      batch_rows_(AddHistogram(r, "sextant_worker_batch_rows", "Rows of a step.", CountBuckets())),
      batch_sequences_(
          AddHistogram(r, "sextant_worker_batch_sequences", "Sequences of a step.", CountBuckets())),
      queue_seconds_(AddHistogram(r, "sextant_worker_queue_seconds",
                                  "Of a request that ended well: until it held a slot and KV blocks.",
                                  LatencyBuckets())),
      prefill_seconds_(AddHistogram(r, "sextant_worker_prefill_seconds",
                                    "Of a request that ended well: from its KV blocks to its first token.",
                                    LatencyBuckets())),
      decode_seconds_(AddHistogram(r, "sextant_worker_decode_seconds",
                                   "Of a request that ended well: from its first token to its last.",
                                   LatencyBuckets())),
      phases_({{PhaseSeconds(r, "wait"), &PhaseTimes::wait},
               {PhaseSeconds(r, "plan"), &PhaseTimes::plan},
               {PhaseSeconds(r, "broadcast"), &PhaseTimes::broadcast},
               {PhaseSeconds(r, "execute"), &PhaseTimes::execute},
               {PhaseSeconds(r, "finish"), &PhaseTimes::finish}}) {
  kv_blocks_.Set(limits.kv_block_count);
}

void LeaderMetrics::CountStep(const StepReport& report) {
  step_seconds_.Observe(absl::ToDoubleSeconds(report.time));
  batch_rows_.Observe(static_cast<double>(report.rows));
  batch_sequences_.Observe(static_cast<double>(report.sequences));
}

void LeaderMetrics::CountRequest(const RequestTimes& times) {
  queue_seconds_.Observe(absl::ToDoubleSeconds(times.queue));
  prefill_seconds_.Observe(absl::ToDoubleSeconds(times.prefill));
  decode_seconds_.Observe(absl::ToDoubleSeconds(times.decode));
}

void LeaderMetrics::SetCounts(const SchedulerCounts& counts, const PhaseTimes& phases) {
  waiting_.Set(static_cast<double>(counts.queued + counts.attaching));
  running_.Set(static_cast<double>(counts.running));
  sealing_.Set(static_cast<double>(counts.sealing));
  waiting_for_capture_.Set(static_cast<double>(counts.waiting_for_capture));
  kv_blocks_used_.Set(static_cast<double>(counts.kv_blocks_used));
  kv_cache_usage_.Set(static_cast<double>(counts.kv_blocks_used) / kv_blocks_.Value());
  prompt_tokens_.Increment(static_cast<double>(counts.prompt_tokens - last_.prompt_tokens));
  generated_tokens_.Increment(static_cast<double>(counts.generated_tokens - last_.generated_tokens));
  recorded_positions_.Increment(static_cast<double>(counts.recorded_positions - last_.recorded_positions));
  recorded_bytes_.Increment(static_cast<double>(counts.recorded_bytes - last_.recorded_bytes));
  last_ = counts;
  for (const Phase& phase : phases_) {
    phase.seconds.Increment(absl::ToDoubleSeconds(phases.*phase.time - last_phases_.*phase.time));
  }
  last_phases_ = phases;
}

void AddModelInfo(prometheus::Registry& registry, const sextant::v1::Model& model) {
  AddInfo(
      registry, "sextant_model_info",
      "Always 1; the labels say which model this group serves. lens_sha256 is the digest of final norm and "
      "head.",
      {{"model", model.name()},
       {"family", model.family()},
       {"dtype", model.dtype() == sextant::v1::DTYPE_F32 ? "float32" : "bfloat16"},
       {"ranks", absl::StrCat(model.tensor_parallel_size())},
       {"weights_sha256", model.weights_sha256()},
       {"lens_sha256", model.lens_sha256()}});
}

}  // namespace sextant
