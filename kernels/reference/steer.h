// Steering written as plainly as possible, in double: the oracle of the faster ones.
#pragma once

#include <vector>

#include "kernels/backend.h"

namespace sextant::reference {

// Backend::Steer of one row for one entry: the row before -> the row after, both [hidden]. direction
// [hidden].
std::vector<double> Steer(const SteerEntry& entry, const float* direction, std::vector<double> row);

}  // namespace sextant::reference
