// Builds safetensors files for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sextant {

// The bytes of a file with this header and data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &size, sizeof size);
  return prefix + header + data;
}

// Collects F32 tensors, one behind the other.
class SafetensorsBuilder {
 public:
  SafetensorsBuilder& F32(const std::string& name, const std::vector<int64_t>& shape,
                          const std::vector<float>& values) {
    const size_t begin = data_.size();
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    entries_.push_back(absl::StrCat("\"", name, "\":{\"dtype\":\"F32\",\"shape\":[",
                                    absl::StrJoin(shape, ","), "],\"data_offsets\":[", begin, ",",
                                    data_.size(), "]}"));
    return *this;
  }
  std::string Build() const {
    return SafetensorsBytes(absl::StrCat("{", absl::StrJoin(entries_, ","), "}"), data_);
  }

 private:
  std::vector<std::string> entries_;
  std::string data_;
};

}  // namespace sextant
