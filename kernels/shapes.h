// CHECKs what Backend promises and asks about the shapes of an operation's arguments, the same for every
// backend.
#pragma once

#include <vector>

#include "kernels/backend.h"

namespace sextant::shapes {

// Each takes the arguments of the Backend method of its name, as far as they have shapes, when the work is
// queued. Device memory is not read.
void CheckEmbed(const Matrix& table, const Tensor& ids, const Tensor& out);
void CheckRmsNorm(const Tensor& in, const Tensor& weight, const Tensor& out);
void CheckMatMul(const Tensor& in, const Matrix& weight, const Tensor& bias, const Tensor& out);
void CheckRopeAndCache(const RopeArgs& args, const AttentionBatch& batch);
void CheckAttention(const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, int64_t q_heads,
                    const Tensor& out);
void CheckSwiGlu(const Tensor& gate_up, const Tensor& out);
void CheckAdd(const Tensor& x, const Tensor& y);
void CheckGatherRows(const Tensor& in, const std::vector<int32_t>& rows, const Tensor& out);
void CheckSample(const Tensor& logits, const std::vector<SampleSettings>& settings, const Tensor& ids,
                 const Tensor& logprobs);
void CheckSteer(const Tensor& activation, const std::vector<SteerEntry>& entries);
void CheckRecord(const Tensor& activation, const std::vector<RecordEntry>& entries);
void CheckLens(const LensBatch& batch, const Tensor& norm_weight, const Matrix& head,
               const LensOutput& output);

}  // namespace sextant::shapes
