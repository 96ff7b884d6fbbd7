// The contract of every backend, part 3: rotation, the paged KV cache and attention.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/backend_contract.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/rope.h"

namespace sextant {
namespace {

struct Shape {
  DType dtype = DType::kF32;
  int64_t q_heads = 3, kv_heads = 1, head_dim = 64;
  bool norms = false;
};

constexpr int64_t kBlockSize = 16;
constexpr int64_t kMaxPositions = 256;
constexpr float kNormEps = 1e-6f;

// A stretch of positions of one sequence.
struct Stretch {
  int32_t sequence, start, count;
};

class BackendAttentionTest : public BackendTest {
 protected:
  // Room for `sequences` sequences of kMaxPositions each, their blocks shuffled.
  void MakeCache(const Shape& shape, int64_t sequences) {
    shape_ = shape;
    std::vector<int32_t> blocks(static_cast<size_t>(sequences * kMaxPositions / kBlockSize));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    tables_ = Indices(blocks, kMaxPositions / kBlockSize);
    device_tables_ = Upload(tables_);
    const int64_t positions = static_cast<int64_t>(blocks.size()) * kBlockSize;
    keys_ = HostTensor(shape.dtype, positions, shape.kv_heads * shape.head_dim);
    values_ = HostTensor(shape.dtype, positions, shape.kv_heads * shape.head_dim);
    device_keys_ = Device(shape.dtype, positions, keys_.view().cols);
    device_values_ = Device(shape.dtype, positions, keys_.view().cols);
    cosines_ = Random(DType::kF32, kMaxPositions, shape.head_dim / 2, 0.5f);
    sines_ = Random(DType::kF32, kMaxPositions, shape.head_dim / 2, 0.5f);
    q_norm_ = Random(DType::kF32, 1, shape.head_dim);
    k_norm_ = Random(DType::kF32, 1, shape.head_dim);
  }

  KvLayer Kv(const Tensor& keys, const Tensor& values) const {
    return {keys.data,  values.data,     shape_.dtype,   tables_.view().rows * tables_.view().cols,
            kBlockSize, shape_.kv_heads, shape_.head_dim};
  }
  KvLayer HostKv() const { return Kv(keys_, values_); }
  KvLayer DeviceKv() const { return Kv(device_keys_, device_values_); }

  // The stretches as one batch, on the host or on the device.
  AttentionBatch Batch(const std::vector<Stretch>& stretches, bool device) {
    std::vector<int32_t> positions, sequences;
    AttentionBatch batch;
    for (const Stretch& s : stretches) {
      batch.runs.push_back({s.sequence, static_cast<int32_t>(positions.size()), s.count, s.start});
      for (int32_t i = 0; i < s.count; ++i) {
        positions.push_back(s.start + i);
        sequences.push_back(s.sequence);
      }
    }
    held_.push_back(Indices(positions));
    batch.positions = device ? Upload(held_.back()) : held_.back().view();
    held_.push_back(Indices(sequences));
    batch.row_sequences = device ? Upload(held_.back()) : held_.back().view();
    batch.block_tables = device ? device_tables_ : tables_.view();
    return batch;
  }

  RopeArgs Rope(const Tensor& qkv, const Tensor& q_out, bool device) {
    const auto place = [&](const HostTensor& tensor) { return device ? Upload(tensor) : tensor.view(); };
    RopeArgs args;
    args.qkv = qkv;
    args.q_norm = shape_.norms ? place(q_norm_) : Tensor();
    args.k_norm = shape_.norms ? place(k_norm_) : Tensor();
    args.norm_eps = kNormEps;
    args.cos_table = place(cosines_);
    args.sin_table = place(sines_);
    args.q_heads = shape_.q_heads;
    args.kv = device ? DeviceKv() : HostKv();
    args.q_out = q_out;
    return args;
  }

  int64_t QueryWidth() const { return shape_.q_heads * shape_.head_dim; }
  int64_t QkvWidth() const { return (shape_.q_heads + 2 * shape_.kv_heads) * shape_.head_dim; }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Fills the cache of a sequence's positions [0, count) on host and device with the same random values.
  void FillCache(int32_t sequence, int32_t count) {
    for (int32_t p = 0; p < count; ++p) {
      const int64_t place =
          tables_.view().Row<int32_t>(sequence)[p / kBlockSize] * kBlockSize + p % kBlockSize;
      for (int64_t c = 0; c < keys_.view().cols; ++c) {
        std::normal_distribution<float> normal;
        keys_.view().Set(place, c, normal(random_));
        values_.view().Set(place, c, normal(random_));
      }
      for (const auto& [host, device] :
           {std::pair(keys_, device_keys_), std::pair(values_, device_values_)}) {
        backend().Copy(stream(), device.Rows(place, 1).data, host.view().Rows(place, 1).data,
                       host.view().cols * SizeOf(shape_.dtype));
      }
    }
    ASSERT_EQ(backend().Synchronize(stream()), absl::OkStatus());
  }

  HostTensor Attend(const HostTensor& q, const std::vector<Stretch>& stretches) {
    const Tensor out = Device(shape_.dtype, q.view().rows, QueryWidth(), 2);
    backend().Attention(stream(), Upload(q, 3), DeviceKv(), Batch(stretches, true), Scale(), shape_.q_heads,
                        out);
    return Download(out);
  }

  static double Norm(const Tensor& row) {
    double squares = 0;
    for (int64_t c = 0; c < row.cols; ++c) squares += double{row.At(0, c)} * row.At(0, c);
    return std::sqrt(squares);
  }

  Shape shape_;
  HostTensor tables_{DType::kI32, 0, 0}, keys_{DType::kF32, 0, 0}, values_{DType::kF32, 0, 0};
  HostTensor cosines_{DType::kF32, 0, 0}, sines_{DType::kF32, 0, 0};
  HostTensor q_norm_{DType::kF32, 0, 0}, k_norm_{DType::kF32, 0, 0};
  Tensor device_tables_, device_keys_, device_values_;
  std::vector<HostTensor> held_;
};

INSTANTIATE_TEST_SUITE_P(Backends, BackendAttentionTest, testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    shapes.push_back({dtype, 3, 1, 64, false});
    shapes.push_back({dtype, 9, 3, 64, true});
    shapes.push_back({dtype, 8, 1, 128, true});
    shapes.push_back({dtype, 2, 2, 20, false});
  }
  return shapes;
}

// Prefill rows, a continued prefill and two decode rows of four sequences.
const std::vector<Stretch> kMixed = {{0, 0, 9}, {1, 30, 33}, {2, 70, 1}, {3, 129, 1}};

TEST_P(BackendAttentionTest, RotatesAndWritesTheCacheInPlace) {
  for (const Shape& shape : Shapes()) {
    MakeCache(shape, 4);
    const HostTensor qkv = Random(DType::kF32, 44, QkvWidth());
    HostTensor queries(shape.dtype, 44, QueryWidth());
    reference::RopeAndCache(Rope(qkv, queries, false), Batch(kMixed, false));
    const Tensor out = Device(shape.dtype, 44, QueryWidth(), 2);
    backend().RopeAndCache(stream(), Rope(Upload(qkv, 5), out, true), Batch(kMixed, true));
    // Rows are normal with |cos|, |sin| about 0.5: values stay below 32, and take one norm and three
    // roundings, whose errors are relative to the two products, not to their difference.
    const auto tolerance = [&](double value) {
      return 32 * (0.5 * shape.head_dim + 8) * 0x1p-24 + RoundingError(shape.dtype, value);
    };
    ExpectNear(Download(out), queries, [&](int64_t r, int64_t c) { return tolerance(queries.At(r, c)); });
    const HostTensor keys = Download(device_keys_), values = Download(device_values_);
    std::vector<bool> written(static_cast<size_t>(keys.view().rows));
    for (const Stretch& s : kMixed) {
      for (int32_t p = s.start; p < s.start + s.count; ++p) {
        const int64_t place =
            tables_.view().Row<int32_t>(s.sequence)[p / kBlockSize] * kBlockSize + p % kBlockSize;
        written[place] = true;
        ExpectSameBits(Slice(values, place, 1), Slice(values_, place, 1));
        for (int64_t c = 0; c < keys.view().cols; ++c) {
          ASSERT_NEAR(keys.At(place, c), keys_.At(place, c), tolerance(keys_.At(place, c)))
              << place << "," << c;
        }
      }
    }
    for (int64_t place = 0; place < keys.view().rows; ++place) {
      ASSERT_TRUE(written[place] || (std::isnan(keys.At(place, 0)) && std::isnan(values.At(place, 0))))
          << place;
    }
  }
}

// As a row's norm: zeros would look like an answer.
TEST_P(BackendAttentionTest, AHeadWhoseSquaresAreBeyondF32BecomesNaN) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    MakeCache({dtype, 3, 1, 64, true}, 1);
    const HostTensor qkv = Random(DType::kF32, 2, QkvWidth());
    qkv.view().Set(1, 70, 1e20f);  // in the second head of the second row
    const Tensor out = Device(dtype, 2, QueryWidth(), 2);
    backend().RopeAndCache(stream(), Rope(Upload(qkv, 5), out, true), Batch({{0, 3, 2}}, true));
    const HostTensor queries = Download(out);
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t c = 0; c < QueryWidth(); ++c)
        EXPECT_EQ(std::isnan(queries.At(r, c)), r == 1 && c / 64 == 1) << r << "," << c;
    }
  }
}

TEST_P(BackendAttentionTest, AttendsToEarlierPositionsOfItsSequenceOnly) {
  for (const Shape& shape : Shapes()) {
    MakeCache(shape, 4);
    // What lies behind a sequence's end is NaN on the device: reading it would show.
    for (const Stretch& s : kMixed) FillCache(s.sequence, s.start + s.count);
    const HostTensor q = Random(shape.dtype, 44, QueryWidth());
    HostTensor expected(DType::kF32, 44, QueryWidth()), rounded(shape.dtype, 44, QueryWidth());
    reference::Attention(q, HostKv(), Batch(kMixed, false), Scale(), shape.q_heads, rounded);
    for (int64_t r = 0; r < 44; ++r) {
      for (int64_t c = 0; c < QueryWidth(); ++c) expected.view().Set(r, c, rounded.At(r, c));
    }
    // A score is off by (head_dim + 2) * 2^-24 * |q||k| * scale at most; a weight, relatively, by twice that
    // and an exponential; a sum of weights by a rounding per position. Outputs are averages of values below 6
    // (normal).
    double q_norm = 0, k_norm = 0;
    for (int64_t r = 0; r < 44; ++r) {
      for (int64_t h = 0; h < shape.q_heads; ++h) {
        q_norm = std::max(q_norm, Norm(q.view().Rows(r, 1).Cols(h * shape.head_dim, shape.head_dim)));
      }
    }
    for (int64_t r = 0; r < keys_.view().rows; ++r) {
      for (int64_t h = 0; h < shape.kv_heads; ++h) {
        k_norm = std::max(k_norm, Norm(keys_.view().Rows(r, 1).Cols(h * shape.head_dim, shape.head_dim)));
      }
    }
    const double score_error = (shape.head_dim + 2) * 0x1p-24 * q_norm * k_norm * Scale();
    const double error = 6 * (2 * score_error + (130 + 16) * 0x1p-24);
    ASSERT_LT(error, 1e-2) << "the bound would not notice a position too many";
    // A backend that sums on tensor cores rounds weights to BF16: each by up to 2^-8 of itself.
    const bool rounds_weights = !GetParam().bit_identical && shape.dtype == DType::kBF16;
    HostTensor sizes(DType::kF32, 44, QueryWidth());
    if (rounds_weights) {
      const HostTensor absolute(shape.dtype, values_.view().rows, values_.view().cols);
      for (int64_t r = 0; r < values_.view().rows; ++r) {
        for (int64_t c = 0; c < values_.view().cols; ++c)
          absolute.view().Set(r, c, std::abs(values_.At(r, c)));
      }
      reference::Attention(q, Kv(keys_, absolute), Batch(kMixed, false), Scale(), shape.q_heads, sizes);
    }
    ExpectNear(Attend(q, kMixed), expected, [&](int64_t r, int64_t c) {
      const double weights = rounds_weights ? 0x1p-8 * sizes.At(r, c) : 0;
      return error + weights + 2 * RoundingError(shape.dtype, expected.At(r, c));
    });
  }
}

TEST_P(BackendAttentionTest, AResultDoesNotDependOnChunksOrCompany) {
  if (!GetParam().bit_identical) GTEST_SKIP() << GetParam().name << " promises tolerance, not bits";
  constexpr int32_t kPositions = 150;
  for (const Shape& shape : Shapes()) {
    MakeCache(shape, 2);
    FillCache(0, kPositions);
    FillCache(1, 40);
    const HostTensor q = Random(shape.dtype, kPositions, QueryWidth());
    const HostTensor whole = Attend(q, {{0, 0, kPositions}});
    const std::vector<std::vector<int32_t>> splits = {
        {1, 149}, {64, 86}, {63, 2, 85}, {37, 41, 72}, {149, 1}};
    for (const std::vector<int32_t>& split : splits) {
      int32_t start = 0;
      for (const int32_t count : split) {
        ExpectSameBits(Attend(Slice(q, start, count), {{0, start, count}}), Slice(whole, start, count));
        start += count;
      }
    }
    for (const int32_t position : {0, 1, 15, 63, 64, 100, 149}) {
      ExpectSameBits(Attend(Slice(q, position, 1), {{0, position, 1}}), Slice(whole, position, 1));
    }
    // Between rows of another sequence.
    const HostTensor mixed = Random(shape.dtype, 33, QueryWidth());
    std::memcpy(mixed.view().Rows(10, 1).data, q.view().Rows(70, 1).data,
                static_cast<size_t>(20 * QueryWidth() * SizeOf(shape.dtype)));
    const HostTensor out = Attend(mixed, {{1, 0, 10}, {0, 70, 20}, {1, 37, 3}});
    ExpectSameBits(Slice(out, 10, 20), Slice(whole, 70, 20));
  }
}

}  // namespace
}  // namespace sextant
