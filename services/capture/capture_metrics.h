// What the capture service counts.
#pragma once

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
    prometheus::Counter* metric;
    int64_t CaptureCounters::*count;
  };
  prometheus::Gauge& waiting_rows_;
  prometheus::Gauge& leased_rows_;
  prometheus::Gauge& oldest_seconds_;
  prometheus::Gauge& held_bytes_;
  prometheus::Gauge& budget_bytes_;
  prometheus::Gauge& credit_bytes_;
  prometheus::Gauge& disk_reserved_bytes_;
  prometheus::Gauge& reading_bytes_;
  prometheus::Gauge& open_;
  prometheus::Gauge& complete_;
  prometheus::Gauge& incomplete_;
  prometheus::Gauge& decoders_;
  std::vector<Counted> counters_;
  CaptureCounters last_;
};

}  // namespace sextant
