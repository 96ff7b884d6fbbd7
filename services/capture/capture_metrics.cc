// What the capture service counts.
#include "services/capture/capture_metrics.h"

#include <string>
#include <vector>

namespace sextant {
namespace {

prometheus::Gauge& Gauge(prometheus::Registry& registry, const char* name, const char* help,
                         const prometheus::Labels& labels = {}) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Counter* Counter(prometheus::Registry& registry, const char* name, const char* help,
                             const prometheus::Labels& labels = {}) {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

}  // namespace

CaptureMetrics::CaptureMetrics(prometheus::Registry& r)
    : waiting_rows_(Gauge(r, "sextant_capture_waiting_rows", "Rows that wait for a lens decoder.")),
      leased_rows_(Gauge(r, "sextant_capture_leased_rows", "Rows leased to lens decoders.")),
      oldest_seconds_(
          Gauge(r, "sextant_capture_oldest_waiting_seconds", "How long the oldest row has waited.")),
      held_bytes_(Gauge(r, "sextant_capture_held_bytes", "Bytes of transient rows in memory.")),
      budget_bytes_(
          Gauge(r, "sextant_capture_budget_bytes", "Bytes of transient rows that may be in memory.")),
      credit_bytes_(Gauge(r, "sextant_capture_credit_outstanding_bytes",
                          "Bytes granted to generations and not given back.")),
      disk_reserved_bytes_(
          Gauge(r, "sextant_capture_disk_reserved_bytes", "Bytes of disk reserved for kept captures.")),
      reading_bytes_(
          Gauge(r, "sextant_capture_readings_reserved_bytes", "Bytes reserved for readings in memory.")),
      open_(Gauge(r, "sextant_capture_captures", "Captures by state.", {{"state", "open"}})),
      complete_(Gauge(r, "sextant_capture_captures", "Captures by state.", {{"state", "complete"}})),
      incomplete_(Gauge(r, "sextant_capture_captures", "Captures by state.", {{"state", "incomplete"}})),
      decoders_(Gauge(r, "sextant_capture_decoders", "Lens decoders connected.")) {
  const char* chunks = "sextant_capture_chunks_total";
  const char* chunks_help = "Chunks received, by what became of them.";
  const char* opens = "sextant_capture_opens_total";
  const char* opens_help = "Captures asked for, by whether they were opened.";
  counters_ = {
      {Counter(r, chunks, chunks_help, {{"result", "stored"}}), &CaptureCounters::chunks_stored},
      {Counter(r, chunks, chunks_help, {{"result", "repeated"}}), &CaptureCounters::chunks_repeated},
      {Counter(r, chunks, chunks_help, {{"result", "refused"}}), &CaptureCounters::chunks_refused},
      {Counter(r, "sextant_capture_received_bytes_total", "Bytes of rows received."),
       &CaptureCounters::bytes_received},
      {Counter(r, "sextant_capture_spooled_bytes_total",
               "Bytes written to the data folder for kept captures."),
       &CaptureCounters::bytes_spooled},
      {Counter(r, "sextant_capture_decoded_rows_total", "Rows whose readings came in."),
       &CaptureCounters::rows_decoded},
      {Counter(r, "sextant_capture_failed_positions_total",
               "Positions given up: every decoder died of them."),
       &CaptureCounters::positions_failed},
      {Counter(r, "sextant_capture_late_results_total", "Results that came after their lease had expired."),
       &CaptureCounters::results_late},
      {Counter(r, "sextant_capture_leases_total", "Leases made."), &CaptureCounters::leases_made},
      {Counter(r, "sextant_capture_leases_expired_total", "Leases that ran out of time."),
       &CaptureCounters::leases_expired},
      {Counter(r, opens, opens_help, {{"result", "opened"}}), &CaptureCounters::captures_opened},
      {Counter(r, opens, opens_help, {{"result", "refused"}}), &CaptureCounters::captures_refused},
      {Counter(r, "sextant_capture_unreadable_captures_total",
               "Kept captures found at the start that could not be read; their folders were left alone."),
       &CaptureCounters::captures_unreadable},
  };
}

void CaptureMetrics::Update(const CaptureCore& core) {
  const internal::v1::GetStatusResponse status = core.GetStatus();
  waiting_rows_.Set(status.waiting_row_count());
  leased_rows_.Set(status.leased_row_count());
  oldest_seconds_.Set(status.oldest_waiting_age_ns() * 1e-9);
  held_bytes_.Set(status.held_bytes());
  budget_bytes_.Set(status.budget_bytes());
  credit_bytes_.Set(core.credit().total_outstanding_bytes());
  disk_reserved_bytes_.Set(status.disk_reserved_bytes());
  reading_bytes_.Set(core.reserved_reading_bytes());
  open_.Set(static_cast<double>(status.open_capture_count()));
  using State = CaptureRecord::State;
  complete_.Set(core.CountCaptures(State::kComplete, State::kComplete));
  incomplete_.Set(core.CountCaptures(State::kIncomplete, State::kIncomplete));
  decoders_.Set(status.decoder_count());
  for (const auto& [metric, count] : counters_) {
    metric->Increment(static_cast<double>(core.counters().*count - last_.*count));
  }
  last_ = core.counters();
}

}  // namespace sextant
