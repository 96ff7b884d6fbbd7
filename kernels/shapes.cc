// CHECKs what Backend promises and asks about the shapes of an operation's arguments, the same for every
// backend.
#include "kernels/shapes.h"

#include "kernels/check.h"

namespace sextant::shapes {
namespace {

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

void CheckShape(const Tensor& tensor, DType dtype, int64_t rows, int64_t cols) {
  SEXTANT_CHECK(tensor.dtype == dtype);
  SEXTANT_CHECK_EQ(tensor.rows, rows);
  SEXTANT_CHECK_EQ(tensor.cols, cols);
  SEXTANT_CHECK(tensor.data != nullptr || rows == 0);
}

void CheckOptionalVector(const Tensor& tensor, int64_t cols) {
  if (tensor.data != nullptr) CheckShape(tensor, DType::kF32, 1, cols);
}

void CheckRow(int64_t row, const Tensor& tensor) { SEXTANT_CHECK(row >= 0 && row < tensor.rows); }

void CheckKv(const KvLayer& kv) {
  SEXTANT_CHECK(kv.keys != nullptr && kv.values != nullptr && IsFloat(kv.dtype));
  SEXTANT_CHECK(kv.block_count > 0 && kv.block_size > 0 && kv.kv_heads > 0 && kv.head_dim > 0);
}

void CheckBatch(const AttentionBatch& batch, int64_t rows) {
  CheckShape(batch.positions, DType::kI32, rows, 1);
  CheckShape(batch.row_sequences, DType::kI32, rows, 1);
  SEXTANT_CHECK(batch.block_tables.dtype == DType::kI32);
  int64_t next = 0;
  for (const QueryRun& run : batch.runs) {
    SEXTANT_CHECK_EQ(run.first_row, next);
    SEXTANT_CHECK(run.row_count > 0 && run.start_position >= 0);
    CheckRow(run.sequence, batch.block_tables);
    next += run.row_count;
  }
  SEXTANT_CHECK_EQ(next, rows);
}

}  // namespace

void CheckEmbed(const Matrix& table, const Tensor& ids, const Tensor& out) {
  CheckShape(ids, DType::kI32, out.rows, 1);
  CheckShape(out, DType::kF32, out.rows, table.cols());
}

void CheckRmsNorm(const Tensor& in, const Tensor& weight, const Tensor& out) {
  CheckShape(in, DType::kF32, in.rows, in.cols);
  CheckShape(weight, DType::kF32, 1, in.cols);
  SEXTANT_CHECK(IsFloat(out.dtype));
  CheckShape(out, out.dtype, in.rows, in.cols);
}

void CheckMatMul(const Tensor& in, const Matrix& weight, const Tensor& bias, const Tensor& out) {
  CheckShape(in, weight.dtype(), in.rows, weight.cols());
  CheckOptionalVector(bias, weight.rows());
  SEXTANT_CHECK(IsFloat(out.dtype));
  CheckShape(out, out.dtype, in.rows, weight.rows());
}

void CheckRopeAndCache(const RopeArgs& args, const AttentionBatch& batch) {
  CheckKv(args.kv);
  const int64_t dim = args.kv.head_dim;
  SEXTANT_CHECK(dim % 2 == 0 && args.q_heads % args.kv.kv_heads == 0);
  CheckShape(args.qkv, DType::kF32, args.qkv.rows, (args.q_heads + 2 * args.kv.kv_heads) * dim);
  CheckOptionalVector(args.q_norm, dim);
  CheckOptionalVector(args.k_norm, dim);
  CheckShape(args.cos_table, DType::kF32, args.cos_table.rows, dim / 2);
  CheckShape(args.sin_table, DType::kF32, args.cos_table.rows, dim / 2);
  CheckShape(args.q_out, args.kv.dtype, args.qkv.rows, args.q_heads * dim);
  CheckBatch(batch, args.qkv.rows);
}

void CheckAttention(const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, int64_t q_heads,
                    const Tensor& out) {
  CheckKv(kv);
  SEXTANT_CHECK(q_heads > 0 && q_heads % kv.kv_heads == 0);
  CheckShape(q, kv.dtype, q.rows, q_heads * kv.head_dim);
  CheckShape(out, kv.dtype, q.rows, q.cols);
  CheckBatch(batch, q.rows);
}

void CheckSwiGlu(const Tensor& gate_up, const Tensor& out) {
  CheckShape(gate_up, DType::kF32, out.rows, 2 * out.cols);
  SEXTANT_CHECK(IsFloat(out.dtype));
}

void CheckAdd(const Tensor& x, const Tensor& y) {
  CheckShape(x, DType::kF32, x.rows, x.cols);
  CheckShape(y, DType::kF32, x.rows, x.cols);
}

void CheckGatherRows(const Tensor& in, const std::vector<int32_t>& rows, const Tensor& out) {
  SEXTANT_CHECK(IsFloat(in.dtype));
  CheckShape(out, in.dtype, static_cast<int64_t>(rows.size()), in.cols);
  for (const int32_t row : rows) CheckRow(row, in);
}

void CheckSample(const Tensor& logits, const std::vector<SampleSettings>& settings, const Tensor& ids,
                 const Tensor& logprobs) {
  CheckShape(logits, DType::kF32, static_cast<int64_t>(settings.size()), logits.cols);
  CheckShape(ids, DType::kI32, logits.rows, 1);
  CheckShape(logprobs, DType::kF32, logits.rows, 1);
}

void CheckSteer(const Tensor& activation, const std::vector<SteerEntry>& entries) {
  SEXTANT_CHECK(IsFloat(activation.dtype));
  for (const SteerEntry& entry : entries) {
    CheckShape(entry.direction, DType::kF32, 1, activation.cols);
    for (const int32_t row : entry.rows) CheckRow(row, activation);
  }
}

void CheckRecord(const Tensor& activation, const std::vector<RecordEntry>& entries) {
  SEXTANT_CHECK(IsFloat(activation.dtype));
  for (const RecordEntry& entry : entries) {
    if (entry.row != -1) CheckRow(entry.row, activation);
    SEXTANT_CHECK_GE(entry.offset, 0);
  }
}

void CheckLens(const LensBatch& batch, const Tensor& norm_weight, const Matrix& head,
               const LensOutput& output) {
  SEXTANT_CHECK(IsFloat(batch.rows.dtype));
  CheckShape(batch.rows, batch.rows.dtype, static_cast<int64_t>(batch.row_info.size()), head.cols());
  CheckShape(norm_weight, DType::kF32, 1, head.cols());
  const auto groups = static_cast<int64_t>(batch.final_rows.size());
  SEXTANT_CHECK_EQ(static_cast<int64_t>(batch.targets.size()), groups * batch.target_count);
  for (const LensRow& row : batch.row_info) SEXTANT_CHECK(row.group >= 0 && row.group < groups);
  for (const int32_t row : batch.final_rows) CheckRow(row, batch.rows);
  SEXTANT_CHECK(batch.top_k >= 0 && batch.target_count >= 0);
  SEXTANT_CHECK(!batch.tracked || (output.tracked_ids != nullptr && output.tracked_logprobs != nullptr));
}

}  // namespace sextant::shapes
