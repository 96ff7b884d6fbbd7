// Launcher of the kernel that chooses next tokens from logits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sextant::cuda {

// How to sample one row; the fields of SampleSettings.
struct SampleRow {
  uint64_t seed = 0;
  uint64_t counter = 0;
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
};

// Vocabularies that sums of weights have room for.
inline constexpr int32_t kSampleMaxVocab = 1 << 19;

// logits [row_count, vocab], `logits_stride` from row to row; rows [row_count] in device memory, so that a
// captured launch serves later steps; ids and logprobs [row_count], with their strides, in device or pinned
// memory.
//
// Draws are those of kernels/reference/sample.h but for rounding: sums of weights are whole numbers, so that
// a draw does not depend on the order in which threads come by.
cudaError_t Sample(const float* logits, int64_t logits_stride, int32_t vocab, const SampleRow* rows,
                   int32_t row_count, int32_t* ids, int64_t ids_stride, float* logprobs,
                   int64_t logprobs_stride, cudaStream_t stream);

}  // namespace sextant::cuda
