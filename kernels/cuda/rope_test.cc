// Compares rotation and the KV write with the oracle, in the head shapes of real models' shards.
#include "kernels/cuda/rope.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/testing/device_array.h"
#include "kernels/reference/rope.h"

namespace sextant::cuda {
namespace {

constexpr int64_t kRows = 5, kPositions = 40, kBlockSize = 4, kBlocks = 24;
constexpr float kEps = 1e-6f;

struct Shape {
  int64_t q_heads, kv_heads, head_dim;
  bool norms;
};

std::vector<float> Normal(int64_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

struct Results {
  std::vector<char> keys, values, queries;
};

class RopeCase {
 public:
  RopeCase(const Shape& shape, DType dtype) : shape_(shape), dtype_(dtype) {
    tables_.resize(2 * kPositions / kBlockSize);
    for (size_t i = 0; i < tables_.size(); ++i) tables_[i] = static_cast<int32_t>((i * 7 + 3) % kBlocks);
  }

  Results Oracle() {
    Results results = Poison();
    RopeArgs args;
    args.qkv = {qkv_.data(), DType::kF32, kRows, QkvWidth(), QkvWidth() + 2};
    const int64_t half = shape_.head_dim / 2;
    if (shape_.norms) args.q_norm = Tensor::Of(q_norm_.data(), DType::kF32, 1, shape_.head_dim);
    if (shape_.norms) args.k_norm = Tensor::Of(k_norm_.data(), DType::kF32, 1, shape_.head_dim);
    args.norm_eps = kEps;
    args.cos_table = Tensor::Of(cosines_.data(), DType::kF32, kPositions, half);
    args.sin_table = Tensor::Of(sines_.data(), DType::kF32, kPositions, half);
    args.q_heads = shape_.q_heads;
    args.kv = {results.keys.data(), results.values.data(), dtype_,         kBlocks,
               kBlockSize,          shape_.kv_heads,       shape_.head_dim};
    args.q_out = Tensor::Of(results.queries.data(), dtype_, kRows, QueryWidth());
    AttentionBatch batch;
    batch.positions = Tensor::Of(positions_.data(), DType::kI32, kRows, 1);
    batch.row_sequences = Tensor::Of(sequences_.data(), DType::kI32, kRows, 1);
    batch.block_tables = Tensor::Of(tables_.data(), DType::kI32, 2, kPositions / kBlockSize);
    reference::RopeAndCache(args, batch);
    return results;
  }

  Results Run() {
    const TestStream stream;
    const Results poison = Poison();
    const DeviceArray<char> keys(poison.keys, stream), values(poison.values, stream),
        queries(poison.queries, stream);
    const DeviceArray<float> qkv(qkv_, stream), q_norm(q_norm_, stream), k_norm(k_norm_, stream);
    const DeviceArray<float> cosines(cosines_, stream), sines(sines_, stream);
    const DeviceArray<int32_t> positions(positions_, stream), sequences(sequences_, stream),
        tables(tables_, stream);
    RopeRows rows;
    rows.qkv = qkv.data();
    rows.qkv_stride = QkvWidth() + 2;
    rows.q_norm = shape_.norms ? q_norm.data() : nullptr;
    rows.k_norm = shape_.norms ? k_norm.data() : nullptr;
    rows.norm_eps = kEps;
    rows.cosines = cosines.data();
    rows.sines = sines.data();
    rows.cosine_stride = rows.sine_stride = shape_.head_dim / 2;
    rows.positions = positions.data();
    rows.row_sequences = sequences.data();
    rows.block_tables = tables.data();
    rows.table_stride = kPositions / kBlockSize;
    rows.keys = keys.data();
    rows.values = values.data();
    rows.q_out = queries.data();
    rows.q_out_stride = QueryWidth();
    rows.row_count = kRows;
    rows.q_heads = static_cast<int32_t>(shape_.q_heads);
    rows.kv_heads = static_cast<int32_t>(shape_.kv_heads);
    rows.head_dim = static_cast<int32_t>(shape_.head_dim);
    rows.block_size = kBlockSize;
    EXPECT_EQ(RopeAndCache(dtype_ == DType::kF32, rows, stream), cudaSuccess);
    return {keys.Read(stream), values.Read(stream), queries.Read(stream)};
  }

  // True when what was not to be written was not, and the rest is near. Values are below 8 (normal, |cos|
  // and |sin| about 0.5, norms about 1), and take a norm of head_dim squares and a few roundings.
  bool Near(const std::vector<char>& got, const std::vector<char>& want) const {
    const auto count = static_cast<int64_t>(want.size()) / SizeOf(dtype_);
    const Tensor a = Tensor::Of(const_cast<char*>(got.data()), dtype_, 1, count);
    const Tensor b = Tensor::Of(const_cast<char*>(want.data()), dtype_, 1, count);
    const double error = 8 * (0.5 * static_cast<double>(shape_.head_dim) + 8) * 0x1p-24;
    for (int64_t i = 0; i < count; ++i) {
      const double rounding = std::abs(b.At(0, i)) * (dtype_ == DType::kBF16 ? 0x1p-7 : 0x1p-23);
      if (std::isnan(b.At(0, i)) != std::isnan(a.At(0, i))) return false;
      if (std::abs(a.At(0, i) - b.At(0, i)) > error + rounding) return false;
    }
    return true;
  }

  void Shift() {
    for (int32_t& position : positions_) ++position;
  }

 private:
  int64_t QueryWidth() const { return shape_.q_heads * shape_.head_dim; }
  int64_t QkvWidth() const { return (shape_.q_heads + 2 * shape_.kv_heads) * shape_.head_dim; }
  Results Poison() const {
    const auto nans = [&](int64_t count) {
      return std::vector<char>(static_cast<size_t>(count * SizeOf(dtype_)), '\xff');
    };
    const int64_t cache = kBlocks * kBlockSize * shape_.kv_heads * shape_.head_dim;
    return {nans(cache), nans(cache), nans(kRows * QueryWidth())};
  }

  const Shape shape_;
  const DType dtype_;
  std::mt19937 random_{3};
  std::vector<float> qkv_ = Normal(kRows * (QkvWidth() + 2), 1, random_);
  std::vector<float> q_norm_ = Normal(shape_.head_dim, 1, random_);
  std::vector<float> k_norm_ = Normal(shape_.head_dim, 1, random_);
  std::vector<float> cosines_ = Normal(kPositions * shape_.head_dim / 2, 0.5f, random_);
  std::vector<float> sines_ = Normal(kPositions * shape_.head_dim / 2, 0.5f, random_);
  std::vector<int32_t> positions_ = {0, 3, 38, 4, 17}, sequences_ = {0, 0, 1, 1, 0};
  std::vector<int32_t> tables_;
};

TEST(RopeTest, MatchesTheOracle) {
  // Shards of 70B, Qwen3 4B and 14B over eight devices, and odd ones.
  for (const Shape& shape : {Shape{8, 1, 128, false}, Shape{4, 1, 128, true}, Shape{5, 1, 128, true},
                             Shape{9, 3, 64, false}, Shape{3, 3, 32, true}, Shape{2, 2, 20, true}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      RopeCase rope(shape, dtype);
      const Results got = rope.Run(), want = rope.Oracle();
      EXPECT_TRUE(rope.Near(got.queries, want.queries)) << shape.head_dim;
      EXPECT_TRUE(rope.Near(got.keys, want.keys)) << shape.head_dim;
      EXPECT_EQ(got.values, want.values) << shape.head_dim;
    }
  }
}

TEST(RopeTest, NoticesAnotherPositionAndASkippedNorm) {
  RopeCase rope({4, 1, 128, true}, DType::kBF16), skipped({4, 1, 128, false}, DType::kBF16);
  const Results got = rope.Run();
  EXPECT_FALSE(rope.Near(got.queries, skipped.Oracle().queries));
  rope.Shift();
  EXPECT_FALSE(rope.Near(got.queries, rope.Oracle().queries));
  EXPECT_NE(got.values, rope.Oracle().values);
}

}  // namespace
}  // namespace sextant::cuda
