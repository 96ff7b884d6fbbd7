// Tests the panel product of every instruction set: against sums in double, and for bits that ignore company.
#include "kernels/cpu/matmul.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/reference/matmul.h"

namespace sextant::cpu {
namespace {

struct Case {
  CpuIsa isa;
  DType dtype;
};

class MatMulPanelsTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!HasCpuIsa(GetParam().isa)) GTEST_SKIP() << "this machine has no " << CpuIsaName(GetParam().isa);
  }

  // Rows of x as the kernels take them, with `gap` elements of NaN after each row: nothing may read them.
  std::vector<char> Activations(int64_t rows, int64_t cols, int64_t gap) {
    const DType dtype = GetParam().dtype;
    std::vector<char> bytes(static_cast<size_t>(rows * (cols + gap) * SizeOf(dtype)));
    const Tensor x = {bytes.data(), dtype, rows, cols + gap, cols + gap};
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols + gap; ++k) x.Set(r, k, k < cols ? normal_(random_) : NAN);
    }
    return bytes;
  }

  std::unique_ptr<PackedMatrix> Weights(int64_t rows, int64_t cols) {
    auto w = PackedMatrix::Pack(GetParam().dtype, rows, cols, [&](int64_t, int64_t count, float* out) {
      for (int64_t i = 0; i < count * cols; ++i) out[i] = normal_(random_);
      return absl::OkStatus();
    });
    SEXTANT_CHECK(w.ok());
    return *std::move(w);
  }

  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
};

// Rounding: each of the K additions (and, in F32, fused products) is off by at most 2^-24 of a partial sum,
// and no partial sum exceeds S = sum |x||w|: |error| <= (K + 1) * 2^-24 * S. Products of two bf16 are exact
// in F32. vdpbf16ps takes subnormal inputs and results as zero; those are below 2^-126 * K, far under the
// bound here.
TEST_P(MatMulPanelsTest, IsWithinRoundingOfTheReference) {
  constexpr int64_t kGap = 3;
  for (const int64_t cols : {1, 2, 7, 129}) {
    for (const int64_t outputs : {1, 50, 240, 289}) {
      const auto w = Weights(outputs, cols);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 70}) {
        const std::vector<char> x = Activations(rows, cols, kGap);
        const Tensor in = {const_cast<char*>(x.data()), w->dtype(), rows, cols, cols + kGap};
        const int64_t width = w->panel_count() * kPanel;
        std::vector<float> out(static_cast<size_t>(rows * width), NAN), expected = out;
        MatMulPanels(GetParam().isa, in.data, in.stride, rows, *w, 0, w->panel_count(), out.data(), width);
        reference::MatMulPanels(in.data, in.stride, rows, *w, 0, w->panel_count(), expected.data(), width);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t n = 0; n < width; ++n) {
            double scale = 0;
            for (int64_t k = 0; n < outputs && k < cols; ++k)
              scale += std::abs(double{in.At(r, k)} * w->At(n, k));
            ASSERT_NEAR(out[r * width + n], expected[r * width + n], (cols + 1) * 0x1p-24 * scale)
                << "cols " << cols << " outputs " << outputs << " rows " << rows << " at " << r << "," << n;
          }
        }
      }
    }
  }
}

TEST_P(MatMulPanelsTest, ARowsBitsDependOnNeitherCompanyNorPanels) {
  constexpr int64_t kRows = 27, kCols = 333, kOutputs = 48 * 7 + 5;
  const auto w = Weights(kOutputs, kCols);
  const int64_t width = w->panel_count() * kPanel;
  const std::vector<char> x = Activations(kRows, kCols, 0);
  const int64_t row_bytes = kCols * SizeOf(GetParam().dtype);
  std::vector<float> all(static_cast<size_t>(kRows * width));
  MatMulPanels(GetParam().isa, x.data(), kCols, kRows, *w, 0, w->panel_count(), all.data(), width);
  for (int64_t first = 0; first < kRows; ++first) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
      if (first + rows > kRows) continue;
      std::vector<float> some(static_cast<size_t>(rows * width));
      MatMulPanels(GetParam().isa, x.data() + first * row_bytes, kCols, rows, *w, 0, w->panel_count(),
                   some.data(), width);
      ASSERT_EQ(std::memcmp(some.data(), all.data() + first * width, some.size() * sizeof(float)), 0)
          << "rows " << first << "+" << rows;
    }
  }
  for (int64_t panel = 0; panel < w->panel_count(); ++panel) {
    std::vector<float> one(static_cast<size_t>(kRows * kPanel));
    MatMulPanels(GetParam().isa, x.data(), kCols, kRows, *w, panel, 1, one.data(), kPanel);
    for (int64_t r = 0; r < kRows; ++r) {
      ASSERT_EQ(std::memcmp(&one[r * kPanel], &all[r * width + panel * kPanel], kPanel * sizeof(float)), 0);
    }
  }
}

TEST_P(MatMulPanelsTest, ShardsOfTheOutputsAgreeBitForBit) {
  // A rank packs its own outputs: row 10 of the whole matrix is row 0 of its share, in another place of a
  // panel.
  constexpr int64_t kRows = 5, kCols = 64, kOutputs = 100, kFirst = 10;
  std::vector<float> values(kOutputs * kCols);
  for (float& v : values) v = normal_(random_);
  const auto pack = [&](int64_t begin, int64_t count) {
    return *PackedMatrix::Pack(GetParam().dtype, count, kCols,
                               [&, begin](int64_t first, int64_t n, float* out) {
                                 std::memcpy(out, values.data() + (begin + first) * kCols,
                                             static_cast<size_t>(n * kCols) * sizeof(float));
                                 return absl::OkStatus();
                               });
  };
  const auto whole = pack(0, kOutputs), part = pack(kFirst, 60);
  const std::vector<char> x = Activations(kRows, kCols, 0);
  std::vector<float> out(kRows * 144), part_out(kRows * 96);
  MatMulPanels(GetParam().isa, x.data(), kCols, kRows, *whole, 0, 3, out.data(), 144);
  MatMulPanels(GetParam().isa, x.data(), kCols, kRows, *part, 0, 2, part_out.data(), 96);
  for (int64_t r = 0; r < kRows; ++r) {
    ASSERT_EQ(std::memcmp(&out[r * 144 + kFirst], &part_out[r * 96], 60 * sizeof(float)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Isas, MatMulPanelsTest,
    testing::Values(Case{CpuIsa::kReference, DType::kF32}, Case{CpuIsa::kReference, DType::kBF16},
                    Case{CpuIsa::kAvx2, DType::kF32}, Case{CpuIsa::kAvx2, DType::kBF16},
                    Case{CpuIsa::kAvx512Bf16, DType::kF32}, Case{CpuIsa::kAvx512Bf16, DType::kBF16},
                    Case{CpuIsa::kAmxBf16, DType::kBF16}),
    [](const auto& info) {
      return std::string(CpuIsaName(info.param.isa)) + (info.param.dtype == DType::kF32 ? "_f32" : "_bf16");
    });

}  // namespace
}  // namespace sextant::cpu
