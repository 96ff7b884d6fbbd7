// Prometheus metrics as every service has them: one registry with build information, and common histogram
// buckets.
//
// Names start with sextant_, counters end in _total, units are seconds and bytes, every family has help text,
// and labels never hold ids of users, requests or layers. Add families with prometheus::BuildCounter() and
// its siblings:
//   auto& rows = prometheus::BuildCounter().Name("sextant_lens_rows_total").Help("Rows
//   decoded.").Register(*registry); prometheus::Counter& decoded = rows.Add({});
#pragma once

#include <memory>

#include "absl/strings/string_view.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace sextant {

// A registry that holds sextant_build_info{service, version}. Threads: any.
std::shared_ptr<prometheus::Registry> MakeMetricsRegistry(absl::string_view service);

// Buckets for durations from 0.1 ms to 60 s, in seconds.
prometheus::Histogram::BucketBoundaries SecondsBuckets();

// 1, 2, 5, 10, ... up to 100,000: rows, tokens, positions.
prometheus::Histogram::BucketBoundaries CountBuckets();

}  // namespace sextant
