// The kernels of the *.inc files, compiled for AVX-512.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/kv_address.h"
#include "kernels/cpu/vector_avx512.h"
#include "kernels/cpu/vector_kernels.h"

namespace sextant::cpu::avx512 {

// clang-format off
#include "kernels/cpu/rmsnorm.inc"
#include "kernels/cpu/swiglu.inc"
#include "kernels/cpu/add.inc"
#include "kernels/cpu/rope.inc"
#include "kernels/cpu/attention.inc"
// clang-format on

}  // namespace sextant::cpu::avx512
