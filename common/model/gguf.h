// The header of a GGUF file: typed metadata and where each tensor lies.
//
// Grammar (little-endian; version 2 or 3):
//   file   = "GGUF" version:u32 tensor_count:i64 key_count:i64 key* tensor* padding data
//   key    = name:string type:u32 value        string = length:u64 byte*
//   value  = scalar | string | element_type:u32 count:u64 element*     (arrays do not nest)
//   tensor = name:string dim_count:u32 dim:i64{dim_count} type:u32 offset:u64
// Dimensions are listed fastest first. Offsets count from the data's start, which is aligned to
// general.alignment (default 32); tensors follow each other in the order listed, each padded to the
// alignment.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/weight_file.h"

namespace sextant {

// The tensor encodings Sextant reads.
enum class GgufTensorType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

// Elements in one block of the encoding, and bytes of one block.
struct GgufBlock {
  int64_t elements = 0;
  int64_t bytes = 0;
};
GgufBlock BlockOf(GgufTensorType type);

struct GgufTensor {
  std::string name;
  GgufTensorType type = GgufTensorType::kF32;
  int64_t rows = 0;    // product of all dimensions but the first listed
  int64_t cols = 0;    // the first listed dimension; a whole number of blocks
  int64_t offset = 0;  // from the start of the file
  int64_t bytes = 0;

  int64_t row_bytes() const { return rows == 0 ? 0 : bytes / rows; }
};

// Immutable. Threads: any.
class GgufHeader {
 public:
  // Parses the header from the file's first bytes. INVALID_ARGUMENT with a reason GGUF_... for every fault of
  // the file; OUT_OF_RANGE when the header goes on behind `prefix` in a file of `file_size` bytes.
  static absl::StatusOr<GgufHeader> Parse(absl::Span<const uint8_t> prefix, int64_t file_size);

  // Reads and parses the header of a file, not its data.
  static absl::StatusOr<GgufHeader> Read(const WeightFile& file);

  bool Has(const std::string& key) const { return values_.count(key) != 0; }

  // Metadata values. INVALID_ARGUMENT: GGUF_KEY_MISSING, or GGUF_KEY_TYPE when the value is of another kind.
  absl::StatusOr<std::string> String(const std::string& key) const;
  absl::StatusOr<int64_t> Integer(const std::string& key) const;  // any integer type
  absl::StatusOr<double> Float(const std::string& key) const;     // float32 or float64
  absl::StatusOr<bool> Boolean(const std::string& key) const;
  // The pointers live as long as the header.
  absl::StatusOr<const std::vector<std::string>*> Strings(const std::string& key) const;
  absl::StatusOr<const std::vector<int64_t>*> Integers(const std::string& key) const;
  absl::StatusOr<const std::vector<double>*> Floats(const std::string& key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // nullptr when there is no such tensor.
  const GgufTensor* Find(const std::string& name) const;

 private:
  friend class GgufParser;
  using Value = std::variant<std::string, int64_t, double, bool, std::vector<std::string>,
                             std::vector<int64_t>, std::vector<double>>;

  template <typename T>
  absl::StatusOr<const T*> Get(const std::string& key, const char* kind) const;

  std::map<std::string, Value> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;  // name -> place in tensors_
};

// Turns `rows` encoded rows of `cols` elements into out [rows, cols]. REQUIRES: cols is a whole number of
// blocks and `bytes` holds exactly those rows.
void DequantizeRows(GgufTensorType type, absl::Span<const uint8_t> bytes, int64_t rows, int64_t cols,
                    float* out);

}  // namespace sextant
