// The weights of a Hugging Face folder.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/model_source.h"
#include "common/model/model_spec.h"

namespace sextant {

// The name of a weight in a Hugging Face folder.
std::string HfTensorName(WeightId id);

// The spec that config.json of the folder gives; weights need not be there. Errors as of OpenModel.
absl::StatusOr<ModelSpec> ReadHfSpec(const std::string& folder);

// Opens config.json and the safetensors beside it. Errors as of OpenModel.
absl::StatusOr<std::unique_ptr<ModelSource>> OpenHfModel(const std::string& folder);

}  // namespace sextant
