// What the lens decoder counts.
#pragma once

#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "services/lens_decoder/lease_decoder.h"

namespace sextant {

// Threads: any.
class DecoderMetrics {
 public:
  explicit DecoderMetrics(prometheus::Registry& registry);

  void BatchDecoded(const DecodedBatch& batch, absl::Duration time);
  void LeaseDone() { leases_done_.Increment(); }
  void LeaseReleased() { leases_released_.Increment(); }
  void LeaseBad() { leases_bad_.Increment(); }
  void Connected() { connected_.Increment(); }
  void Disconnected() { connected_.Decrement(); }
  void ConnectionFailed() { failures_.Increment(); }

 private:
  prometheus::Counter& rows_;
  prometheus::Counter& positions_;
  prometheus::Family<prometheus::Counter>& leases_;
  prometheus::Counter& leases_done_;
  prometheus::Counter& leases_released_;
  prometheus::Counter& leases_bad_;
  prometheus::Histogram& decode_seconds_;
  prometheus::Histogram& batch_rows_;
  prometheus::Counter& busy_seconds_;
  prometheus::Gauge& connected_;
  prometheus::Counter& failures_;
};

}  // namespace sextant
