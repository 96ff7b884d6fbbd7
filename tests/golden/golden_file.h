// Reads a golden file, and finds the models that golden files were made with.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/model/safetensors.h"

namespace sextant {

// The arrays of one *.golden.safetensors. A missing array fails the test.
class GoldenFile {
 public:
  explicit GoldenFile(const std::string& name) {
    auto file = SafetensorsFile::Open(Folder() + "/" + name + ".golden.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    if (file.ok()) file_ = std::make_unique<SafetensorsFile>(*std::move(file));
  }

  // tests/golden of the source tree.
  static std::string Folder() {
    const char* source = std::getenv("SEXTANT_SOURCE_DIR");
    return std::string(source == nullptr ? "." : source) + "/tests/golden";
  }

  std::vector<float> Floats(const std::string& name) const { return Read<float>(name); }
  std::vector<int32_t> Ints(const std::string& name) const { return Read<int32_t>(name); }

 private:
  template <typename T>
  std::vector<T> Read(const std::string& name) const {
    const SafetensorsTensor* tensor = file_ == nullptr ? nullptr : file_->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    if (tensor == nullptr) return {};
    const int64_t bytes = tensor->end - tensor->begin;
    std::vector<T> values(static_cast<size_t>(bytes) / sizeof(T));
    EXPECT_TRUE(
        file_->Read(*tensor, 0, absl::MakeSpan(reinterpret_cast<uint8_t*>(values.data()), bytes)).ok());
    return values;
  }

  std::unique_ptr<SafetensorsFile> file_;
};

// The quickstart's model, or nothing where it was not fetched.
inline std::optional<std::string> QuickstartModel() {
  const char* given = std::getenv("SEXTANT_QUICKSTART_MODEL");
  const std::string path =
      given != nullptr ? given : GoldenFile::Folder() + "/../../build/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

}  // namespace sextant
