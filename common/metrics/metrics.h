// Prometheus metrics as every service has them: one registry with build information, how families are added,
// and common histogram buckets.
//
// Names start with sextant_ and the service, counters end in _total, units are seconds and bytes, every
// family has help text, and labels never hold ids of users, requests or layers. Series whose labels are known
// are added at the start: a rate over a series that appears with its first event misses that event.
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

// One series of a family; the family is made with the first of them. REQUIRES: every series of a family has
// the same help text and label names. The series lives as long as the registry. Threads: any.
prometheus::Counter& AddCounter(prometheus::Registry& registry, const char* name, const char* help,
                                const prometheus::Labels& labels = {});
prometheus::Gauge& AddGauge(prometheus::Registry& registry, const char* name, const char* help,
                            const prometheus::Labels& labels = {});
prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const char* name, const char* help,
                                    const prometheus::Histogram::BucketBoundaries& buckets,
                                    const prometheus::Labels& labels = {});

// A gauge that is always 1 and says something in its labels; its name ends in _info.
void AddInfo(prometheus::Registry& registry, const char* name, const char* help,
             const prometheus::Labels& labels);

// Durations of single steps, from 0.1 ms to 60 s, in seconds.
prometheus::Histogram::BucketBoundaries SecondsBuckets();

// What a user waits for, from 1 ms to 43 minutes, in seconds: the boundaries that dashboards of other
// inference servers use as well.
prometheus::Histogram::BucketBoundaries LatencyBuckets();

// 1, 2, 5, 10, ... up to 100,000: rows, tokens, positions.
prometheus::Histogram::BucketBoundaries CountBuckets();

}  // namespace sextant
