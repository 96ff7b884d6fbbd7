// The weights of a GGUF file of the llama kind.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/gguf.h"
#include "common/model/model_source.h"

namespace sextant {

// Reads the model's numbers from the metadata (and rope_freqs.weight from the file).
// INVALID_ARGUMENT: MODEL_UNSUPPORTED, MODEL_SPEC, GGUF_KEY_MISSING, GGUF_KEY_TYPE; errors of reading.
absl::StatusOr<ModelSpec> SpecFromGguf(const GgufHeader& header, const WeightFile& file);

// The name of a weight in a GGUF file.
std::string GgufTensorName(WeightId id);

// Opens a .gguf file. Errors as of OpenModel.
absl::StatusOr<std::unique_ptr<ModelSource>> OpenGgufModel(const std::string& path);

}  // namespace sextant
