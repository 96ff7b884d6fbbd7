// What the capture service counts.
#pragma once

#include <vector>

#include "common/metrics/metrics.h"
#include "services/capture/capture_core.h"

namespace sextant {

// Threads: one at a time.
class CaptureMetrics {
 public:
  explicit CaptureMetrics(prometheus::Registry& registry);

  // Takes over what the core counts.
  void Update(const CaptureCore& core);

 private:
  struct Counted {
    prometheus::Counter& metric;
    int64_t CaptureCounters::*count;
  };
  void UpdateGauges(const CaptureCore& core);

  prometheus::Gauge& waiting_rows_;
  prometheus::Gauge& leased_rows_;
  prometheus::Gauge& oldest_seconds_;
  prometheus::Gauge& held_bytes_;
  prometheus::Gauge& budget_bytes_;
  prometheus::Gauge& credit_bytes_;
  prometheus::Gauge& disk_reserved_bytes_;
  prometheus::Gauge& disk_budget_bytes_;
  prometheus::Gauge& reading_bytes_;
  prometheus::Gauge& open_;
  prometheus::Gauge& complete_;
  prometheus::Gauge& incomplete_;
  prometheus::Gauge& leases_;
  prometheus::Gauge& decoders_;
  prometheus::Gauge& ranks_;
  prometheus::Gauge& followers_;
  prometheus::Histogram& delay_seconds_;
  const std::vector<Counted> counters_;
  CaptureCounters last_;
  ReadingDelays last_delays_;
};

}  // namespace sextant
