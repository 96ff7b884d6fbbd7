// What the lens decoder counts.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "services/lens_decoder/lease_decoder.h"

namespace sextant {

// REQUIRES: the registry outlives it. Threads: any.
class DecoderMetrics {
 public:
  explicit DecoderMetrics(prometheus::Registry& registry);

  void BatchDecoded(const DecodedBatch& batch, absl::Duration time);
  // Which head it decodes with, and over how many streams.
  void SetDecoder(const std::string& backend, const std::string& dtype, const std::string& lens_sha256,
                  int stream_count);
  // `held`: from its rows' arrival to its last reading.
  void LeaseDone(absl::Duration held) {
    leases_done_.Increment();
    lease_seconds_.Observe(absl::ToDoubleSeconds(held));
  }
  void LeaseReleased() { leases_released_.Increment(); }
  void LeaseBad() { leases_bad_.Increment(); }
  void Connected() { connected_.Increment(); }
  void Disconnected() { connected_.Decrement(); }
  void ConnectionFailed() { failures_.Increment(); }

 private:
  prometheus::Registry& registry_;
  prometheus::Counter& rows_;
  prometheus::Counter& positions_;
  prometheus::Counter& leases_done_;
  prometheus::Counter& leases_released_;
  prometheus::Counter& leases_bad_;
  prometheus::Histogram& lease_seconds_;
  prometheus::Histogram& decode_seconds_;
  prometheus::Histogram& batch_rows_;
  prometheus::Counter& busy_seconds_;
  prometheus::Gauge& connected_;
  prometheus::Counter& failures_;
};

}  // namespace sextant
