// G1 and G2: the fused lens beside a plain matrix product of the same run.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "tests/gpu/figures.h"

namespace sextant {

struct LensFigureOptions {
  std::string name = "G1";
  double target = 0.8;
  int64_t hidden = 4096;
  int64_t vocab = 128256;
  int64_t groups = 512;
  int64_t group_rows = 32;
  int64_t product_size = 8192;  // of the square product beside it
  int rounds = 5;
};

// Floating-point operations per second of the lens (top 10, entropy, divergence, one target) over those of
// the product, BF16.
absl::StatusOr<Figure> MeasureLens(Backend& backend, const LensFigureOptions& options);

}  // namespace sextant
