// A model of random numbers, small enough for unit tests, written as a Hugging Face folder or a GGUF file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/model/model_source.h"
#include "common/model/testing/temporary_folder.h"

namespace sextant {

class TinyModel {
 public:
  // Two layers, 6 query and 3 key/value heads, an odd vocabulary: nothing divides evenly by 2.
  static ModelSpec Spec();

  explicit TinyModel(const ModelSpec& spec, uint32_t seed = 1);

  const ModelSpec& spec() const { return spec_; }
  // The weight's values [rows, cols], in Hugging Face's order; may be changed before writing.
  std::vector<float>& values(WeightId id) { return values_[Key(id)]; }

  // Writes config.json and model.safetensors (F32).
  void WriteHf(const TemporaryFolder& folder) const;
  // Writes a GGUF file (F32) and returns its path. REQUIRES: a spec of the llama kind.
  std::string WriteGguf(const TemporaryFolder& folder) const;

 private:
  static std::pair<int, int> Key(WeightId id) { return {static_cast<int>(id.kind), id.layer}; }

  ModelSpec spec_;
  std::map<std::pair<int, int>, std::vector<float>> values_;
};

}  // namespace sextant
