// Safetensors files: the header of one file, and models of several shards.
//
// Grammar: header_size:u64-le header:json data. The header is an object of tensors
//   "name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}
// and may have "__metadata__", an object of strings. Offsets count from the data's start; together the
// tensors cover the data without hole, overlap or rest. The header begins with '{'; it may end with spaces.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/model/weight_file.h"

namespace sextant {

enum class SafetensorsDType {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
  kC64,
};

struct SafetensorsTensor {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::kF32;
  std::vector<int64_t> shape;
  int64_t begin = 0;  // bytes from the start of the data
  int64_t end = 0;
};

// Parses and checks a header. `data_bytes` is what the file holds behind it.
// INVALID_ARGUMENT: SAFETENSORS_HEADER (no JSON object of tensors), SAFETENSORS_TENSOR (an entry is
// malformed), SAFETENSORS_DTYPE, SAFETENSORS_SHAPE, SAFETENSORS_OFFSETS (outside the data), SAFETENSORS_SIZE
// (shape and offsets disagree), SAFETENSORS_LAYOUT (hole, overlap, or bytes behind the last tensor).
absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensorsHeader(absl::string_view header,
                                                                      int64_t data_bytes);

// One file. Immutable. Threads: any.
class SafetensorsFile {
 public:
  // INVALID_ARGUMENT as of ParseSafetensorsHeader; SAFETENSORS_HEADER also when the file is too short for its
  // header.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  // nullptr when there is no such tensor.
  const SafetensorsTensor* Find(const std::string& name) const;
  // Reads bytes of a tensor's data from `offset` on. Errors as of WeightFile::Read. REQUIRES: they are within
  // it.
  absl::Status Read(const SafetensorsTensor& tensor, int64_t offset, absl::Span<uint8_t> out) const;
  const WeightFile& file() const { return file_; }

 private:
  explicit SafetensorsFile(WeightFile file) : file_(std::move(file)) {}

  WeightFile file_;
  int64_t data_start_ = 0;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;  // name -> place in tensors_
};

// A tensor and the file that holds it.
struct SafetensorsPlace {
  const SafetensorsFile* file = nullptr;
  const SafetensorsTensor* tensor = nullptr;
};

// The tensors of a folder: model.safetensors, or the shards that model.safetensors.index.json lists. Threads:
// any.
class SafetensorsFolder {
 public:
  // NOT_FOUND / MODEL_FILE_MISSING; INVALID_ARGUMENT as of SafetensorsFile, and SAFETENSORS_INDEX when the
  // index is malformed, names a file outside the folder, or disagrees with the shards.
  static absl::StatusOr<SafetensorsFolder> Open(const std::string& folder);

  // A place with null pointers when there is no such tensor.
  SafetensorsPlace Find(const std::string& name) const;
  // Sorted by path.
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unordered_map<std::string, SafetensorsPlace> places_;
};

}  // namespace sextant
