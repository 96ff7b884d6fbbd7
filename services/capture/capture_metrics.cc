// What the capture service counts.
#include "services/capture/capture_metrics.h"

namespace sextant {
namespace {

prometheus::Gauge& Captures(prometheus::Registry& registry, const char* state) {
  return AddGauge(registry, "sextant_capture_captures", "Captures held, by state.", {{"state", state}});
}

prometheus::Counter& Chunks(prometheus::Registry& registry, const char* result) {
  return AddCounter(registry, "sextant_capture_chunks_total", "Chunks received, by what became of them.",
                    {{"result", result}});
}

prometheus::Counter& Opens(prometheus::Registry& registry, const char* result) {
  return AddCounter(registry, "sextant_capture_opens_total",
                    "Captures asked for, by whether they were opened.", {{"result", result}});
}

prometheus::Counter& Ended(prometheus::Registry& registry, const char* result) {
  return AddCounter(registry, "sextant_capture_ended_total",
                    "Captures that were complete, or cut short: cancelled, lost, refused or out of time.",
                    {{"result", result}});
}

prometheus::Counter& Returned(prometheus::Registry& registry, const char* reason) {
  return AddCounter(registry, "sextant_capture_leases_returned_total",
                    "Leases that ended without all results: released by the decoder, or orphaned by the end "
                    "of its stream.",
                    {{"reason", reason}});
}

}  // namespace

CaptureMetrics::CaptureMetrics(prometheus::Registry& r)
    : waiting_rows_(AddGauge(r, "sextant_capture_waiting_rows", "Rows that wait for a lens decoder.")),
      leased_rows_(AddGauge(r, "sextant_capture_leased_rows", "Rows leased to lens decoders.")),
      oldest_seconds_(AddGauge(r, "sextant_capture_oldest_waiting_seconds",
                               "How long the oldest row has waited; 0 when none does.")),
      held_bytes_(AddGauge(r, "sextant_capture_held_bytes", "Bytes of transient rows in memory.")),
      budget_bytes_(
          AddGauge(r, "sextant_capture_budget_bytes", "Bytes of transient rows that may be in memory.")),
      credit_bytes_(AddGauge(r, "sextant_capture_credit_outstanding_bytes",
                             "Bytes granted to generations and not given back.")),
      disk_reserved_bytes_(
          AddGauge(r, "sextant_capture_disk_reserved_bytes", "Bytes of disk reserved for kept captures.")),
      disk_budget_bytes_(
          AddGauge(r, "sextant_capture_disk_budget_bytes", "Bytes of disk that kept captures may reserve.")),
      reading_bytes_(
          AddGauge(r, "sextant_capture_readings_reserved_bytes", "Bytes reserved for readings in memory.")),
      open_(Captures(r, "open")),
      complete_(Captures(r, "complete")),
      incomplete_(Captures(r, "incomplete")),
      leases_(AddGauge(r, "sextant_capture_leases", "Leases that decoders hold.")),
      decoders_(AddGauge(r, "sextant_capture_decoders", "Streams of lens decoders connected.")),
      ranks_(AddGauge(r, "sextant_capture_rank_streams", "Ranks of shard workers connected.")),
      followers_(AddGauge(r, "sextant_capture_followers", "Readers of readings connected.")),
      delay_seconds_(AddHistogram(r, "sextant_capture_reading_delay_seconds",
                                  "From a position's arrival to its readings.",
                                  {ReadingDelays::kBounds.begin(), ReadingDelays::kBounds.end()})),
      counters_({
          {Chunks(r, "stored"), &CaptureCounters::chunks_stored},
          {Chunks(r, "repeated"), &CaptureCounters::chunks_repeated},
          {Chunks(r, "refused"), &CaptureCounters::chunks_refused},
          {AddCounter(r, "sextant_capture_received_bytes_total", "Bytes of rows received."),
           &CaptureCounters::bytes_received},
          {AddCounter(r, "sextant_capture_spooled_bytes_total",
                      "Bytes written to the data folder for kept captures."),
           &CaptureCounters::bytes_spooled},
          {AddCounter(r, "sextant_capture_decoded_positions_total", "Positions whose readings came in."),
           &CaptureCounters::positions_decoded},
          {AddCounter(r, "sextant_capture_decoded_rows_total", "Rows whose readings came in."),
           &CaptureCounters::rows_decoded},
          {AddCounter(r, "sextant_capture_failed_positions_total",
                      "Positions given up: every decoder that took them ended or gave them back."),
           &CaptureCounters::positions_failed},
          {AddCounter(r, "sextant_capture_late_results_total",
                      "Results that came after their lease had expired."),
           &CaptureCounters::results_late},
          {AddCounter(r, "sextant_capture_leases_total", "Leases made."), &CaptureCounters::leases_made},
          {AddCounter(r, "sextant_capture_leases_expired_total", "Leases that ran out of time."),
           &CaptureCounters::leases_expired},
          {Returned(r, "released"), &CaptureCounters::leases_released},
          {Returned(r, "orphaned"), &CaptureCounters::leases_orphaned},
          {Opens(r, "opened"), &CaptureCounters::captures_opened},
          {Opens(r, "refused"), &CaptureCounters::captures_refused},
          {Ended(r, "complete"), &CaptureCounters::captures_completed},
          {Ended(r, "cut_short"), &CaptureCounters::captures_cut_short},
          {AddCounter(r, "sextant_capture_unreadable_captures_total",
                      "Kept captures found at the start that could not be read; their folders were left "
                      "alone."),
           &CaptureCounters::captures_unreadable},
      }) {}

void CaptureMetrics::Update(const CaptureCore& core) {
  UpdateGauges(core);
  for (const auto& [metric, count] : counters_) {
    metric.Increment(static_cast<double>(core.counters().*count - last_.*count));
  }
  last_ = core.counters();
  const ReadingDelays& delays = core.reading_delays();
  std::vector<double> increments;
  for (size_t i = 0; i < delays.counts.size(); ++i) {
    increments.push_back(static_cast<double>(delays.counts[i] - last_delays_.counts[i]));
  }
  delay_seconds_.ObserveMultiple(increments, delays.seconds - last_delays_.seconds);
  last_delays_ = delays;
}

void CaptureMetrics::UpdateGauges(const CaptureCore& core) {
  using State = CaptureRecord::State;
  const internal::v1::GetStatusResponse status = core.GetStatus();
  waiting_rows_.Set(static_cast<double>(status.waiting_row_count()));
  leased_rows_.Set(static_cast<double>(status.leased_row_count()));
  oldest_seconds_.Set(static_cast<double>(status.oldest_waiting_age_ns()) * 1e-9);
  held_bytes_.Set(static_cast<double>(status.held_bytes()));
  budget_bytes_.Set(static_cast<double>(status.budget_bytes()));
  credit_bytes_.Set(static_cast<double>(core.credit().total_outstanding_bytes()));
  disk_reserved_bytes_.Set(static_cast<double>(status.disk_reserved_bytes()));
  disk_budget_bytes_.Set(core.disk() == nullptr ? 0 : static_cast<double>(core.disk()->budget_bytes()));
  reading_bytes_.Set(static_cast<double>(core.reserved_reading_bytes()));
  open_.Set(static_cast<double>(status.open_capture_count()));
  complete_.Set(static_cast<double>(core.CountCaptures(State::kComplete, State::kComplete)));
  incomplete_.Set(static_cast<double>(core.CountCaptures(State::kIncomplete, State::kIncomplete)));
  leases_.Set(static_cast<double>(core.lease_count()));
  decoders_.Set(status.decoder_count());
  ranks_.Set(static_cast<double>(core.rank_stream_count()));
  followers_.Set(static_cast<double>(core.follower_count()));
}

}  // namespace sextant
