// The registry every service starts from.
#include "common/metrics/metrics.h"

#include <string>

#include "common/base/version.h"

namespace sextant {

std::shared_ptr<prometheus::Registry> MakeMetricsRegistry(absl::string_view service) {
  auto registry = std::make_shared<prometheus::Registry>();
  prometheus::BuildGauge()
      .Name("sextant_build_info")
      .Help("Always 1; the labels say which service of which version this is.")
      .Register(*registry)
      .Add({{"service", std::string(service)}, {"version", Version()}})
      .Set(1);
  return registry;
}

prometheus::Histogram::BucketBoundaries SecondsBuckets() {
  return {.0001, .0003, .001, .003, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 60};
}

prometheus::Histogram::BucketBoundaries CountBuckets() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1'000, 2'000, 5'000, 10'000, 20'000, 50'000, 100'000};
}

}  // namespace sextant
