// Sampling written as plainly as possible, in double and with full sorts: the oracle of the faster ones.
#include "kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/sample_philox.h"

namespace sextant::reference {

SampledToken Sample(const float* logits, int64_t vocab, const SampleSettings& settings) {
  std::vector<int32_t> order(static_cast<size_t>(vocab));  // most probable first, ties by id
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const double top = logits[order[0]];
  double sum = 0;
  for (int64_t v = 0; v < vocab; ++v) sum += std::exp(logits[v] - top);
  const auto token = [&](int32_t id) {
    return SampledToken{id, static_cast<float>(logits[id] - top - std::log(sum))};
  };
  if (settings.temperature == 0) return token(order[0]);

  const auto weight = [&](int32_t id) { return std::exp((logits[id] - top) / settings.temperature); };
  if (settings.top_k > 0 && settings.top_k < vocab) order.resize(static_cast<size_t>(settings.top_k));
  double total = 0;
  for (int32_t id : order) total += weight(id);
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || settings.top_p >= 1 || kept < settings.top_p * total)) {
    kept += weight(order[count++]);
  }
  order.resize(count);
  std::sort(order.begin(), order.end());

  double left = PhiloxUniform(settings.seed, settings.counter) * kept;
  for (int32_t id : order) {
    left -= weight(id);
    if (left < 0) return token(id);
  }
  return token(order.back());
}

}  // namespace sextant::reference
