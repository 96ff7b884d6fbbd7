// G4, G5 and G6: decoding beside a copy of memory, and decoding with capture or lens beside plain decoding.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/model_spec.h"
#include "kernels/backend.h"
#include "tests/gpu/figures.h"

namespace sextant {

struct DecodeFigureOptions {
  int32_t context = 1500;  // positions before the first step
  int32_t steps = 32;      // of one measurement
  int rounds = 5;
  std::vector<int32_t> batches = {1, 32};
  int64_t copy_bytes = int64_t{1} << 30;
};

// Loads a model of random weights, BF16, and decodes with it.
absl::StatusOr<std::vector<Figure>> MeasureDecode(Backend& backend, const std::string& shape,
                                                  const ModelSpec& spec, const DecodeFigureOptions& options);

}  // namespace sextant
