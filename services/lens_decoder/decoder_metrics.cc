// What the lens decoder counts.
#include "services/lens_decoder/decoder_metrics.h"

namespace sextant {
namespace {

prometheus::Counter& AddCounter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const char* name, const char* help,
                                    const prometheus::Histogram::BucketBoundaries& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

}  // namespace

DecoderMetrics::DecoderMetrics(prometheus::Registry& registry)
    : rows_(AddCounter(registry, "sextant_lens_rows_total", "Rows decoded.")),
      positions_(AddCounter(registry, "sextant_lens_positions_total", "Positions decoded.")),
      leases_(prometheus::BuildCounter()
                  .Name("sextant_lens_leases_total")
                  .Help("Leases that ended: done, released (given back while stopping) or bad (could not be "
                        "decoded).")
                  .Register(registry)),
      leases_done_(leases_.Add({{"result", "done"}})),
      leases_released_(leases_.Add({{"result", "released"}})),
      leases_bad_(leases_.Add({{"result", "bad"}})),
      decode_seconds_(AddHistogram(registry, "sextant_lens_decode_seconds", "Time to decode one batch.",
                                   SecondsBuckets())),
      batch_rows_(AddHistogram(registry, "sextant_lens_batch_rows", "Rows of one batch.", CountBuckets())),
      busy_seconds_(
          AddCounter(registry, "sextant_lens_busy_seconds_total",
                     "Time spent decoding, over all streams; its rate over the number of streams is how busy "
                     "the decoder is.")),
      connected_(prometheus::BuildGauge()
                     .Name("sextant_lens_connected_streams")
                     .Help("Streams that the capture service has greeted.")
                     .Register(registry)
                     .Add({})),
      failures_(AddCounter(registry, "sextant_lens_connection_failures_total",
                           "Streams that could not be opened or broke; each is opened again.")) {}

void DecoderMetrics::BatchDecoded(const DecodedBatch& batch, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  rows_.Increment(batch.row_count);
  positions_.Increment(batch.position_count);
  decode_seconds_.Observe(seconds);
  batch_rows_.Observe(batch.row_count);
  busy_seconds_.Increment(seconds);
}

}  // namespace sextant
