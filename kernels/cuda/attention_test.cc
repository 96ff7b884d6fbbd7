// Compares the attention kernels with the oracle, in the head shapes of real models' shards.
#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/testing/device_array.h"

namespace sextant::cuda {
namespace {

// Consecutive positions of one sequence.
struct Stretch {
  int32_t start, count;
};

struct Shape {
  DType dtype = DType::kBF16;
  int32_t q_heads = 8, kv_heads = 1, head_dim = 128, block_size = 16;
};

enum class Kernel { kDecode, kPrefill, kPlain };

// Stretch s is of sequence s. Queries, a shuffled cache of which only what may be read is a number, and what
// the oracle makes of them.
class AttentionCase {
 public:
  AttentionCase(const Shape& shape, std::vector<Stretch> stretches)
      : shape_(shape), stretches_(std::move(stretches)), table_stride_(Blocks() + 2) {
    const auto sequences = static_cast<int64_t>(stretches_.size());
    tables_.resize(static_cast<size_t>(sequences * table_stride_));
    std::iota(tables_.begin(), tables_.end(), 0);
    std::shuffle(tables_.begin(), tables_.end(), random_);
    const int64_t width = int64_t{shape.kv_heads} * shape.head_dim;
    const auto cache = static_cast<int64_t>(tables_.size()) * shape.block_size * width;
    keys_ = Nans(cache);
    values_ = Nans(cache);
    for (int64_t s = 0; s < sequences; ++s) {
      const Stretch& stretch = stretches_[static_cast<size_t>(s)];
      for (int32_t p = 0; p < stretch.start + stretch.count; ++p) {
        const int64_t block = tables_[static_cast<size_t>(s * table_stride_ + p / shape.block_size)];
        const int64_t place = (block * shape.block_size + p % shape.block_size) * width;
        for (int64_t i = place; i < place + width; ++i) {
          Set(keys_, i);
          Set(values_, i);
        }
      }
      for (int32_t i = 0; i < stretch.count; ++i) {
        positions_.push_back(stretch.start + i);
        sequences_.push_back(static_cast<int32_t>(s));
      }
    }
    queries_ = Nans(rows() * QStride());
    for (int64_t r = 0; r < rows(); ++r) {
      for (int64_t c = 0; c < Width(); ++c) Set(queries_, r * QStride() + c);
    }
  }

  int64_t rows() const { return static_cast<int64_t>(positions_.size()); }
  int64_t Width() const { return int64_t{shape_.q_heads} * shape_.head_dim; }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Makes the key at `position` of the row's sequence point where the row's first query does, far out: their
  // score lies by hundreds above the others.
  void Answer(int64_t row, int32_t position) {
    const int64_t table = sequences_[static_cast<size_t>(row)] * table_stride_;
    const int64_t block = tables_[static_cast<size_t>(table + position / shape_.block_size)];
    const int64_t key = (block * shape_.block_size + position % shape_.block_size) * shape_.kv_heads;
    const Tensor from = {queries_.data(), shape_.dtype, rows(), shape_.head_dim, QStride()};
    const Tensor to = {keys_.data(), shape_.dtype, key + 1, shape_.head_dim, shape_.head_dim};
    for (int64_t d = 0; d < shape_.head_dim; ++d) to.Set(key, d, 24 * from.At(row, d));
  }

  // [rows, Width()]
  std::vector<float> Run(Kernel kernel, int32_t parts = 1, int32_t shift = 0) {
    const TestStream stream;
    std::vector<int32_t> positions = positions_;
    for (int32_t& position : positions) position += shift;
    const DeviceArray<char> keys(keys_, stream), values(values_, stream), q(queries_, stream);
    const DeviceArray<int32_t> tables(tables_, stream), device_positions(positions, stream);
    const DeviceArray<int32_t> sequences(sequences_, stream);
    const DeviceArray<char> out(Nans(rows() * OutStride()), stream);
    const int64_t bytes = DecodeScratchBytes(rows(), shape_.q_heads, shape_.head_dim, parts);
    const DeviceArray<char> scratch(static_cast<size_t>(bytes));
    const PagedKv kv = {keys.data(),       values.data(),   tables.data(),  table_stride_,
                        shape_.block_size, shape_.kv_heads, shape_.head_dim};
    const AttentionRows device_rows = {q.data(),
                                       out.data(),
                                       QStride(),
                                       OutStride(),
                                       device_positions.data(),
                                       sequences.data(),
                                       static_cast<int32_t>(rows()),
                                       shape_.q_heads,
                                       Scale()};
    cudaError_t error = cudaSuccess;
    if (kernel == Kernel::kDecode) {
      error = DecodeAttention(device_rows, kv, parts, reinterpret_cast<float*>(scratch.data()), stream);
    } else if (kernel == Kernel::kPrefill) {
      const std::vector<PrefillRun> runs = Runs(shift);
      error = PrefillAttention(device_rows, kv, runs.data(), static_cast<int32_t>(runs.size()), stream);
    } else {
      error = PlainAttention(shape_.dtype == DType::kF32, device_rows, kv, stream);
    }
    EXPECT_EQ(error, cudaSuccess);
    std::vector<char> bytes_out = out.Read(stream);
    const Tensor view = {bytes_out.data(), shape_.dtype, rows(), Width(), OutStride()};
    std::vector<float> result;
    for (int64_t r = 0; r < rows(); ++r) {
      for (int64_t c = 0; c < Width(); ++c) result.push_back(view.At(r, c));
    }
    return result;
  }

  // The first element of `got` that differs from the oracle by more than rounding explains; empty if none.
  std::string Difference(const std::vector<float>& got, Kernel kernel) {
    const std::vector<float> want = Oracle(values_), size = Oracle(Absolute(values_));
    // A score is off by (head_dim + 2) * 2^-24 * |q||k| * scale at most; a weight, relatively, by twice that,
    // an exponential and a rounding per tile of 64 positions summed; a sum of weights by a rounding per
    // position. |q|, |k| < 1.4 sqrt(head_dim) of normal numbers (head_dim >= 20).
    const double length = *std::max_element(positions_.begin(), positions_.end()) + 1;
    const double score = (shape_.head_dim + 2) * 0x1p-24 * 2 * 1.96 * std::sqrt(shape_.head_dim);
    double weight = 2 * score + (length + 16) * 0x1p-24;
    // The prefill kernel rounds weights to BF16 for the tensor cores.
    if (kernel == Kernel::kPrefill) weight += 0x1p-8;
    const double rounding = shape_.dtype == DType::kBF16 ? 0x1p-8 : 0x1p-23;
    for (size_t i = 0; i < want.size(); ++i) {
      const double tolerance = weight * size[i] + rounding * std::abs(want[i]);
      if (!(std::abs(got[i] - want[i]) <= tolerance)) {
        return "element " + std::to_string(i) + " is " + std::to_string(got[i]) + ", not " +
               std::to_string(want[i]) + " +- " + std::to_string(tolerance);
      }
    }
    return "";
  }

 private:
  int64_t Blocks() const {
    int64_t blocks = 0;
    for (const Stretch& s : stretches_) {
      blocks = std::max<int64_t>(blocks, (s.start + s.count + shape_.block_size - 1) / shape_.block_size);
    }
    return blocks;
  }
  int64_t QStride() const { return Width() + 3; }
  int64_t OutStride() const { return Width() + 1; }
  std::vector<char> Nans(int64_t count) const {
    return std::vector<char>(static_cast<size_t>(count * SizeOf(shape_.dtype)), '\xff');
  }
  void Set(std::vector<char>& memory, int64_t i) {
    const float value = std::normal_distribution<float>()(random_);
    Tensor::Of(memory.data(), shape_.dtype, 1, i + 1).Set(0, i, value);
  }
  std::vector<char> Absolute(std::vector<char> memory) const {
    const auto size = static_cast<size_t>(SizeOf(shape_.dtype));
    for (size_t i = size - 1; i < memory.size(); i += size) memory[i] = static_cast<char>(memory[i] & 0x7f);
    return memory;
  }
  std::vector<PrefillRun> Runs(int32_t shift) const {
    std::vector<PrefillRun> runs;
    int32_t row = 0;
    for (size_t s = 0; s < stretches_.size(); ++s) {
      runs.push_back({static_cast<int32_t>(s), row, stretches_[s].count, stretches_[s].start + shift});
      row += stretches_[s].count;
    }
    return runs;
  }
  // [rows, Width()], not rounded to the results' dtype.
  std::vector<float> Oracle(std::vector<char> values) {
    AttentionBatch batch;
    batch.positions = Tensor::Of(positions_.data(), DType::kI32, rows(), 1);
    batch.row_sequences = Tensor::Of(sequences_.data(), DType::kI32, rows(), 1);
    batch.block_tables =
        Tensor::Of(tables_.data(), DType::kI32, static_cast<int64_t>(stretches_.size()), table_stride_);
    const KvLayer kv = {
        keys_.data(),      values.data(),   shape_.dtype,   static_cast<int64_t>(tables_.size()),
        shape_.block_size, shape_.kv_heads, shape_.head_dim};
    std::vector<float> out(static_cast<size_t>(rows() * Width()));
    reference::Attention({queries_.data(), shape_.dtype, rows(), Width(), QStride()}, kv, batch, Scale(),
                         shape_.q_heads, Tensor::Of(out.data(), DType::kF32, rows(), Width()));
    return out;
  }

  const Shape shape_;
  const std::vector<Stretch> stretches_;
  const int64_t table_stride_;
  std::mt19937 random_{7};
  std::vector<int32_t> tables_, positions_, sequences_;
  std::vector<char> keys_, values_, queries_;
};

void ExpectMatches(Kernel kernel, const Shape& shape, const std::vector<Stretch>& stretches,
                   const std::vector<int32_t>& parts = {1}) {
  AttentionCase attention(shape, stretches);
  for (const int32_t count : parts) {
    EXPECT_EQ(attention.Difference(attention.Run(kernel, count), kernel), "")
        << shape.q_heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", parts " << count;
  }
}

// Lengths about the borders of tiles.
const std::vector<Stretch> kLengths = {{0, 1}, {62, 1}, {63, 1}, {64, 1}, {130, 1}};

// Shards of Llama-3.1 70B and Qwen3 32B, 4B and 14B over eight devices, Llama-3.1 8B over four, and others.
TEST(DecodeAttentionTest, MatchesTheOracleInEveryGroupSize) {
  ExpectMatches(Kernel::kDecode, {.q_heads = 8}, kLengths, {1, 3});
  ExpectMatches(Kernel::kDecode, {.q_heads = 4}, kLengths, {2});
  ExpectMatches(Kernel::kDecode, {.q_heads = 5}, kLengths, {64});
  ExpectMatches(Kernel::kDecode, {.q_heads = 8, .kv_heads = 2}, kLengths, {2});
  ExpectMatches(Kernel::kDecode, {.q_heads = 9, .kv_heads = 3, .head_dim = 64, .block_size = 5}, kLengths,
                {1, 2});
  ExpectMatches(Kernel::kDecode, {.q_heads = 2, .kv_heads = 2, .head_dim = 32, .block_size = 4}, kLengths,
                {1, 3});
  ExpectMatches(Kernel::kDecode, {.q_heads = 18, .head_dim = 64}, kLengths, {1, 2});
}

TEST(DecodeAttentionTest, CutsContextsToFillTheDevice) {
  // 8B on one device, one request: blocks for every processor, and no more parts than tiles.
  EXPECT_EQ(DecodeParts(1, 32, 8, 8192, 132), 64);
  EXPECT_EQ(DecodeParts(1, 32, 8, 1500, 132), 24);
  // Many requests fill it alone.
  EXPECT_EQ(DecodeParts(256, 32, 8, 8192, 132), 1);
  EXPECT_EQ(DecodeParts(16, 8, 1, 8192, 132), 49);
  EXPECT_EQ(DecodeParts(0, 8, 1, 16, 132), 1);
  EXPECT_EQ(DecodeScratchBytes(16, 8, 128, 1), 0);
}

TEST(PrefillAttentionTest, MatchesTheOracleInEveryGroupSize) {
  const std::vector<Stretch> runs = {{0, 9}, {60, 7}, {129, 1}, {0, 70}};
  ExpectMatches(Kernel::kPrefill, {.q_heads = 8}, {{0, 9}, {60, 7}, {129, 1}});
  ExpectMatches(Kernel::kPrefill, {.q_heads = 5}, {{3, 14}});
  ExpectMatches(Kernel::kPrefill, {.q_heads = 3, .kv_heads = 3, .head_dim = 64, .block_size = 5}, runs);
  ExpectMatches(Kernel::kPrefill, {.q_heads = 2, .kv_heads = 1, .head_dim = 32, .block_size = 4}, runs);
}

// In the columns of a tile that are written last: a maximum taken before them would not keep the exponentials
// small.
TEST(PrefillAttentionTest, ScoresFarAboveTheOthers) {
  AttentionCase attention({.q_heads = 1, .head_dim = 64}, {{64, 16}});
  for (int32_t row = 0; row < 16; ++row) attention.Answer(row, 48 + row);
  EXPECT_EQ(attention.Difference(attention.Run(Kernel::kPrefill), Kernel::kPrefill), "");
}

TEST(PrefillAttentionTest, TakesMoreRunsThanOneLaunchHolds) {
  std::vector<Stretch> runs;
  for (int32_t i = 0; i < 70; ++i) runs.push_back({i % 5, 1 + i % 2});
  ExpectMatches(Kernel::kPrefill, {.q_heads = 1, .head_dim = 32, .block_size = 4}, runs);
}

TEST(PlainAttentionTest, ServesF32AndOddHeads) {
  const std::vector<Stretch> rows = {{0, 3}, {127, 2}, {140, 1}};
  ExpectMatches(Kernel::kPlain, {.dtype = DType::kF32, .q_heads = 2, .head_dim = 128}, rows);
  ExpectMatches(Kernel::kPlain, {.q_heads = 2, .kv_heads = 2, .head_dim = 20}, rows);
  ExpectMatches(Kernel::kPlain, {.q_heads = 1, .head_dim = 256}, rows);
}

TEST(AttentionTest, OffsetsPassTwoToTheThirtyFirst) {
  // 80 GB of one layer's keys in blocks of 16 positions: 8 heads of 128.
  EXPECT_EQ(KvElement(2'441'406, 16, 15, 8, 7, 128), int64_t{2'441'406} * 16'384 + 15 * 1024 + 7 * 128);
  EXPECT_EQ(Element(70'000, 40'960, 40'959), int64_t{70'000} * 40'960 + 40'959);
}

// The tolerance must notice a position too many, and one too few.
TEST(AttentionTest, NoticesAnotherLength) {
  AttentionCase attention({.q_heads = 2, .head_dim = 64}, {{60, 1}, {5, 30}});
  for (const Kernel kernel : {Kernel::kDecode, Kernel::kPrefill, Kernel::kPlain}) {
    EXPECT_EQ(attention.Difference(attention.Run(kernel), kernel), "");
    EXPECT_NE(attention.Difference(attention.Run(kernel, 1, -1), kernel), "");
    EXPECT_NE(attention.Difference(attention.Run(kernel, 1, 1), kernel), "");
  }
}

TEST(AttentionTest, RefusesWhatItIsNotBuiltFor) {
  const AttentionRows rows = {.row_count = 1, .q_heads = 1};
  const PagedKv odd = {.kv_heads = 1, .head_dim = 20}, large = {.kv_heads = 1, .head_dim = 257};
  const PrefillRun run = {0, 0, 1, 0};
  const TestStream stream;
  EXPECT_NE(DecodeAttention(rows, odd, 1, nullptr, stream), cudaSuccess);
  EXPECT_NE(PrefillAttention(rows, odd, &run, 1, stream), cudaSuccess);
  EXPECT_NE(PlainAttention(true, rows, large, stream), cudaSuccess);
}

}  // namespace
}  // namespace sextant::cuda
