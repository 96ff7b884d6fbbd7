// The contract of every backend, part 2: embedding, norm, products and gating against the plain reference.
//
// Tolerances: a sum of K terms in F32 is off by at most K * 2^-24 of the sum of the terms' magnitudes, in any
// order; the reference sums in double, so that its own error does not count. Results in BF16 add one
// rounding.
#include <cmath>

#include "kernels/backend_contract.h"
#include "kernels/reference/elementwise.h"
#include "kernels/reference/matmul.h"
#include "kernels/reference/rmsnorm.h"

namespace sextant {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};
constexpr int64_t kRowCounts[] = {1, 7, 8, 9, 33};

class BackendForwardTest : public BackendTest {};

INSTANTIATE_TEST_SUITE_P(Backends, BackendForwardTest, testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BackendForwardTest, EmbedsTheIdsOfItsShareAndZeroesTheOthers) {
  for (const DType dtype : kDTypes) {
    const HostTensor values = Random(dtype, 50, 7);
    const Weights table = Pack(values, dtype);
    // The share holds ids 100 to 149.
    const HostTensor ids = Indices({100, 149, 99, 150, 0, 120});
    const Tensor out = Device(DType::kF32, 6, 7, 2);
    backend().Embed(stream(), *table.device, 100, Upload(ids), out);
    const HostTensor actual = Download(out);
    for (int64_t r = 0; r < 6; ++r) {
      const int64_t entry = ids.view().Row<int32_t>(r)[0] - 100;
      for (int64_t c = 0; c < 7; ++c) {
        EXPECT_EQ(actual.At(r, c), entry >= 0 && entry < 50 ? values.At(entry, c) : 0.0f) << r << "," << c;
      }
    }
  }
}

TEST_P(BackendForwardTest, NormsRows) {
  constexpr float kEps = 1e-5f;
  for (const DType dtype : kDTypes) {
    for (const int64_t n : {1, 8, 50, 576, 8200}) {
      for (const int64_t rows : kRowCounts) {
        const HostTensor in = Random(DType::kF32, rows, n, 3), weight = Random(DType::kF32, 1, n);
        HostTensor expected(DType::kF32, rows, n);
        reference::RmsNorm(in, weight, kEps, expected);
        const Tensor out = Device(dtype, rows, n, 5);
        backend().RmsNorm(stream(), Upload(in, 3), Upload(weight), kEps, out);
        // Half the relative error of the sum of squares, and four roundings.
        ExpectNear(Download(out), expected, [&](int64_t r, int64_t c) {
          return std::abs(expected.At(r, c)) * (0.5 * n + 4) * 0x1p-24 +
                 RoundingError(dtype, expected.At(r, c));
        });
      }
    }
  }
}

// Captures take the two operations, other requests the one: they must not differ.
TEST_P(BackendForwardTest, NormsASumAsTheTwoOperationsDo) {
  for (const DType dtype : kDTypes) {
    for (const int64_t n : {1, 8, 50, 576, 8200}) {
      const HostTensor in = Random(DType::kF32, 3, n), increase = Random(DType::kF32, 3, n, 6),
                       weight = Random(DType::kF32, 1, n);
      const Tensor sum = Upload(in, 3), x = Upload(in, 3), y = Upload(increase, 2), w = Upload(weight);
      const Tensor expected = Device(dtype, 3, n, 5), out = Device(dtype, 3, n, 5);
      backend().Add(stream(), sum, y);
      backend().RmsNorm(stream(), sum, w, 1e-5f, expected);
      backend().AddRmsNorm(stream(), x, y, w, 1e-5f, out);
      ExpectNear(Download(x), Download(sum), [](int64_t, int64_t) { return 0; });
      ExpectNear(Download(out), Download(expected), [](int64_t, int64_t) { return 0; });
    }
  }
}

// Zeros would look like an answer.
TEST_P(BackendForwardTest, ARowWhoseSquaresAreBeyondF32BecomesNaN) {
  for (const DType dtype : kDTypes) {
    for (const int64_t n : {1, 8, 50, 576}) {
      HostTensor in = Random(DType::kF32, 4, n, 3);
      in.view().Set(1, n - 1, 1e20f);
      in.view().Set(2, 0, 1e18f);  // its square is within
      const Tensor out = Device(dtype, 4, n, 5);
      backend().RmsNorm(stream(), Upload(in, 3), Upload(Random(DType::kF32, 1, n)), 1e-5f, out);
      const HostTensor actual = Download(out);
      for (int64_t r = 0; r < 4; ++r) {
        for (int64_t c = 0; c < n; ++c) EXPECT_EQ(std::isnan(actual.At(r, c)), r == 1) << r << "," << c;
      }
    }
  }
}

TEST_P(BackendForwardTest, MultipliesWithBiasAndRounding) {
  for (const DType dtype : kDTypes) {
    for (const int64_t cols : {64, 97}) {
      for (const int64_t outputs : {3, 50, 144, 337}) {
        const Weights weight = Pack(Random(dtype, outputs, cols), dtype);
        for (const int64_t rows : kRowCounts) {
          const HostTensor in = Random(dtype, rows, cols), bias = Random(DType::kF32, 1, outputs, 10);
          const int64_t width = weight.host->panel_count() * kPanel;
          HostTensor sums(DType::kF32, rows, width), magnitudes(DType::kF32, rows, width);
          reference::MatMulPanels(in.view().data, cols, rows, *weight.host, 0, weight.host->panel_count(),
                                  sums.view().As<float>(), width);
          for (const bool biased : {false, true}) {
            for (const DType out_dtype : kDTypes) {
              const Tensor out = Device(out_dtype, rows, outputs, 6);
              backend().MatMul(stream(), Upload(in, 4), *weight.device, biased ? Upload(bias) : Tensor(),
                               out);
              HostTensor expected(DType::kF32, rows, outputs);
              for (int64_t r = 0; r < rows; ++r) {
                for (int64_t n = 0; n < outputs; ++n) {
                  expected.view().Set(r, n, sums.At(r, n) + (biased ? bias.At(0, n) : 0));
                }
              }
              // |x|, |w| are normal: the sum of |x||w| stays below cols (its mean is 0.64 cols) at these
              // sizes.
              ExpectNear(Download(out), expected, [&](int64_t r, int64_t c) {
                return cols * (cols + 2) * 0x1p-24 + RoundingError(out_dtype, expected.At(r, c));
              });
            }
          }
        }
      }
    }
  }
}

TEST_P(BackendForwardTest, AProductsRowIsTheSameAloneAndInCompany) {
  if (!GetParam().bit_identical) GTEST_SKIP() << GetParam().name << " promises tolerance, not bits";
  for (const DType dtype : kDTypes) {
    const Weights weight = Pack(Random(dtype, 337, 97), dtype);
    const HostTensor in = Random(dtype, 33, 97);
    const auto multiply = [&](const HostTensor& rows) {
      const Tensor out = Device(DType::kF32, rows.view().rows, 337);
      backend().MatMul(stream(), Upload(rows), *weight.device, Tensor(), out);
      return Download(out);
    };
    const HostTensor all = multiply(in);
    for (const int64_t rows : {1, 2, 3, 5, 7, 8, 9, 17}) {
      for (int64_t first = 0; first + rows <= 33; first += 6) {
        ExpectSameBits(multiply(Slice(in, first, rows)), Slice(all, first, rows));
      }
    }
  }
}

TEST_P(BackendForwardTest, Gates) {
  for (const DType dtype : kDTypes) {
    for (const int64_t n : {1, 50, 192}) {
      for (const int64_t rows : kRowCounts) {
        const HostTensor gate_up = Random(DType::kF32, rows, 2 * n, 4);
        HostTensor expected(DType::kF32, rows, n);
        reference::SwiGlu(gate_up, expected);
        const Tensor out = Device(dtype, rows, n, 1);
        backend().SwiGlu(stream(), Upload(gate_up, 3), out);
        // An exponential within 2 units in the last place and four roundings.
        ExpectNear(Download(out), expected, [&](int64_t r, int64_t c) {
          return std::abs(expected.At(r, c)) * 8 * 0x1p-24 + RoundingError(dtype, expected.At(r, c));
        });
      }
    }
  }
}

TEST_P(BackendForwardTest, GatesOfAnySizeStayFinite) {
  HostTensor gate_up(DType::kF32, 1, 8);
  const float gates[4] = {-1e4f, -80, 80, 1e4f};
  for (int64_t i = 0; i < 4; ++i) {
    gate_up.view().Set(0, i, gates[i]);
    gate_up.view().Set(0, 4 + i, 2);
  }
  const Tensor out = Device(DType::kF32, 1, 4);
  backend().SwiGlu(stream(), Upload(gate_up), out);
  const HostTensor actual = Download(out);
  EXPECT_NEAR(actual.At(0, 0), 0, 1e-30);
  EXPECT_NEAR(actual.At(0, 1), 0, 1e-30);
  EXPECT_EQ(actual.At(0, 2), 160);
  EXPECT_EQ(actual.At(0, 3), 2e4f);
}

TEST_P(BackendForwardTest, AddsExactly) {
  for (const int64_t rows : kRowCounts) {
    const HostTensor x = Random(DType::kF32, rows, 50), y = Random(DType::kF32, rows, 50);
    const Tensor sum = Upload(x, 2);
    backend().Add(stream(), sum, Upload(y, 1));
    ExpectNear(Download(sum), x,
               [&](int64_t r, int64_t c) { return std::abs(y.At(r, c)) * (1 + 1e-6) + 1e-6; });
    HostTensor expected = Slice(x, 0, rows);
    reference::Add(expected, y);
    ExpectSameBits(Download(sum), expected);
  }
}

TEST_P(BackendForwardTest, GathersRows) {
  for (const DType dtype : kDTypes) {
    const HostTensor in = Random(dtype, 9, 50);
    const Tensor out = Device(dtype, 4, 50, 1);
    backend().GatherRows(stream(), Upload(in, 2), {8, 0, 3, 3}, out);
    const HostTensor actual = Download(out);
    const int64_t rows[] = {8, 0, 3, 3};
    for (int64_t i = 0; i < 4; ++i) ExpectSameBits(Slice(actual, i, 1), Slice(in, rows[i], 1));
  }
}

}  // namespace
}  // namespace sextant
