// The registry every service starts from, and how families are added to it.
#include "common/metrics/metrics.h"

#include <string>

#include "common/base/version.h"

namespace sextant {

std::shared_ptr<prometheus::Registry> MakeMetricsRegistry(absl::string_view service) {
  auto registry = std::make_shared<prometheus::Registry>();
  AddInfo(*registry, "sextant_build_info", "Always 1; the labels say which service of which version this is.",
          {{"service", std::string(service)}, {"version", Version()}});
  return registry;
}

prometheus::Counter& AddCounter(prometheus::Registry& registry, const char* name, const char* help,
                                const prometheus::Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& AddGauge(prometheus::Registry& registry, const char* name, const char* help,
                            const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const char* name, const char* help,
                                    const prometheus::Histogram::BucketBoundaries& buckets,
                                    const prometheus::Labels& labels) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
}

void AddInfo(prometheus::Registry& registry, const char* name, const char* help,
             const prometheus::Labels& labels) {
  AddGauge(registry, name, help, labels).Set(1);
}

prometheus::Histogram::BucketBoundaries SecondsBuckets() {
  return {.0001, .0003, .001, .003, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 60};
}

prometheus::Histogram::BucketBoundaries LatencyBuckets() {
  return {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
          1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
}

prometheus::Histogram::BucketBoundaries CountBuckets() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1'000, 2'000, 5'000, 10'000, 20'000, 50'000, 100'000};
}

}  // namespace sextant
