// Allocates the host memory that CPU tensors and packed matrices live in.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace sextant::cpu {

// `bytes` of undefined contents, aligned to 64 bytes (a cache line and a whole AVX-512 register); from 4 MiB
// on aligned to 2 MiB and in huge pages where the kernel grants them, because streaming weights through 4 KiB
// pages misses the TLB. Errors: INVALID_ARGUMENT for a negative size, RESOURCE_EXHAUSTED when memory is not
// to be had. Any thread.
absl::StatusOr<Buffer> AllocateAligned(int64_t bytes);

}  // namespace sextant::cpu
