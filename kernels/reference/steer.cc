// Steering written as plainly as possible, in double: the oracle of the faster ones.
#include "kernels/reference/steer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sextant::reference {
namespace {

double Norm(const std::vector<double>& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

}  // namespace

std::vector<double> Steer(const SteerEntry& entry, const float* direction, std::vector<double> row) {
  const std::vector<double> v(direction, direction + row.size());
  const double v_norm = Norm(v), row_norm = Norm(row);
  std::vector<double> unit = v;
  for (double& x : unit) x = v_norm > 0 ? x / v_norm : 0;
  const double projection = std::inner_product(row.begin(), row.end(), unit.begin(), 0.0);
  for (size_t i = 0; i < row.size(); ++i) {
    switch (entry.op) {
      case SteerOperator::kAdd:
        row[i] += entry.strength * v[i];
        break;
      case SteerOperator::kAddScaled:
        row[i] += entry.strength * row_norm * unit[i];
        break;
      case SteerOperator::kAblate:
        row[i] -= entry.strength * projection * unit[i];
        break;
      case SteerOperator::kClamp:
        row[i] += (std::clamp<double>(projection, entry.low, entry.high) - projection) * unit[i];
        break;
      case SteerOperator::kSet:
        row[i] = v[i];
        break;
    }
  }
  if (const double now = Norm(row); entry.preserve_norm && now > 0) {
    for (double& x : row) x *= row_norm / now;
  }
  return row;
}

}  // namespace sextant::reference
