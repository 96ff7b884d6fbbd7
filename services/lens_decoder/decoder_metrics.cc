// What the lens decoder counts.
#include "services/lens_decoder/decoder_metrics.h"

namespace sextant {
namespace {

prometheus::Counter& Leases(prometheus::Registry& registry, const char* result) {
  return AddCounter(
      registry, "sextant_lens_leases_total",
      "Leases that ended: done, released (given back while stopping) or bad (could not be decoded).",
      {{"result", result}});
}

}  // namespace

DecoderMetrics::DecoderMetrics(prometheus::Registry& registry)
    : registry_(registry),
      rows_(AddCounter(registry, "sextant_lens_rows_total", "Rows decoded.")),
      positions_(AddCounter(registry, "sextant_lens_positions_total", "Positions decoded.")),
      leases_done_(Leases(registry, "done")),
      leases_released_(Leases(registry, "released")),
      leases_bad_(Leases(registry, "bad")),
      lease_seconds_(AddHistogram(registry, "sextant_lens_lease_seconds",
                                  "From the arrival of a lease's rows to its last reading.",
                                  SecondsBuckets())),
      decode_seconds_(AddHistogram(registry, "sextant_lens_decode_seconds", "Time to decode one batch.",
                                   SecondsBuckets())),
      batch_rows_(AddHistogram(registry, "sextant_lens_batch_rows", "Rows of one batch.", CountBuckets())),
      busy_seconds_(
          AddCounter(registry, "sextant_lens_busy_seconds_total",
                     "Time spent decoding, over all streams; its rate over the number of streams is how busy "
                     "the decoder is.")),
      connected_(AddGauge(registry, "sextant_lens_connected_streams",
                          "Streams that the capture service has greeted.")),
      failures_(AddCounter(registry, "sextant_lens_connection_failures_total",
                           "Streams that could not be opened or broke; each is opened again.")) {}

void DecoderMetrics::SetDecoder(const std::string& backend, const std::string& dtype,
                                const std::string& lens_sha256, int stream_count) {
  AddInfo(registry_, "sextant_lens_info",
          "Always 1; the labels say with what is decoded. lens_sha256 is the digest of final norm and head: "
          "rows of an engine with another one are not leased to it.",
          {{"backend", backend}, {"dtype", dtype}, {"lens_sha256", lens_sha256}});
  AddGauge(registry_, "sextant_lens_streams", "Streams to the capture service, one thread each.")
      .Set(stream_count);
}

void DecoderMetrics::BatchDecoded(const DecodedBatch& batch, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  rows_.Increment(batch.row_count);
  positions_.Increment(batch.position_count);
  decode_seconds_.Observe(seconds);
  batch_rows_.Observe(batch.row_count);
  busy_seconds_.Increment(seconds);
}

}  // namespace sextant
