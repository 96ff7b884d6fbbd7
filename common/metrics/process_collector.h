// Metrics of the process itself: memory, processor time, descriptors, connections, threads, start time.
#pragma once

#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace sextant {

// Reads /proc/self on each Collect; what cannot be read is left out. Costs some microseconds for each open
// descriptor, whatever else the machine has open. Threads: any.
class ProcessCollector final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace sextant
