// Row lists and steering entries, laid out as the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/kernels.h"

namespace sextant::cuda {

// Room for `count`: exactly as much, or with `rounded` the power of two above it, so that steps which differ
// a little are launched alike. 0 stays 0.
int32_t CapacityFor(int64_t count, bool rounded);

// RecordList with room for `capacity`.
std::vector<char> LayOutRecords(const std::vector<RecordEntry>& entries, int32_t capacity);

// Exactly what `entries` take, or in a step, of an activation of `rows`, room for steering all of them.
SteerCapacity SteerCapacityFor(const std::vector<SteerEntry>& entries, int64_t rows, bool in_step);
// SteerList: the touched rows ascending, each with its entries in their order.
std::vector<char> LayOutSteering(const std::vector<SteerEntry>& entries, const SteerCapacity& capacity);

}  // namespace sextant::cuda
