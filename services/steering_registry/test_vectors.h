// Vectors and temporary folders for the registry's tests.
#pragma once

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "services/steering_registry/vector_check.h"
#include "sextant/v1/vector.pb.h"

namespace sextant {

// A valid description of directions of `layers` for a model of 30 layers, width 4.
inline v1::Vector SomeVector(const std::string& name, const std::vector<int>& layers = {14}) {
  v1::Vector vector;
  vector.set_name(name);
  vector.set_site(v1::SITE_RESID_PRE);
  for (const int layer : layers) vector.add_layers(layer);
  vector.set_hidden_size(4);
  vector.set_model_layer_count(30);
  vector.set_model("tiny");
  return vector;
}

inline std::string Bytes(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Directions of one layer of width 4 that differ for every `seed`.
inline std::string SomeData(int seed) { return Bytes({static_cast<float>(seed), 1, 2, 2}); }

// The vector as the registry hands it to a store.
inline v1::Vector Checked(v1::Vector vector, const std::string& data) {
  const std::vector<float> norms = *CheckDirections(vector, data);
  *vector.mutable_norms() = {norms.begin(), norms.end()};
  vector.set_sha256(VectorDigest(vector, data));
  return vector;
}

// A new folder, removed with everything in it.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "sextant_registry_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace sextant
