// The header of a GGUF file: typed metadata and where each tensor lies.
#include "common/model/gguf.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/checked_math.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kMaxKeys = 65'536;
constexpr int64_t kMaxTensors = 65'536;
constexpr int64_t kMaxKeyBytes = 65'535;
constexpr int64_t kMaxTensorNameBytes = 63;
constexpr int64_t kMaxStringBytes = 16 << 20;
constexpr int64_t kMaxElements = 16 << 20;
constexpr int64_t kMaxDimensions = 4;
constexpr int64_t kMaxAlignment = 65'536;
constexpr int64_t kMaxHeaderBytes = 1 << 30;
constexpr int64_t kFirstReadBytes = 4 << 20;

// Type numbers of metadata values.
enum ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

absl::Status Invalid(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, absl::StrCat("GGUF file: ", message));
}

bool IsSupported(uint32_t type) {
  switch (static_cast<GgufTensorType>(type)) {
    case GgufTensorType::kF32:
    case GgufTensorType::kF16:
    case GgufTensorType::kQ4_0:
    case GgufTensorType::kQ4_1:
    case GgufTensorType::kQ8_0:
    case GgufTensorType::kBF16:
      return true;
  }
  return false;
}

}  // namespace

GgufBlock BlockOf(GgufTensorType type) {
  switch (type) {
    case GgufTensorType::kF32:
      return {1, 4};
    case GgufTensorType::kF16:
      return {1, 2};
    case GgufTensorType::kBF16:
      return {1, 2};
    case GgufTensorType::kQ4_0:
      return {32, 18};
    case GgufTensorType::kQ4_1:
      return {32, 20};
    case GgufTensorType::kQ8_0:
      return {32, 34};
  }
  SEXTANT_CHECK(false);
}

// Walks the header's bytes; every read says whether the bytes are there.
class GgufParser {
 public:
  GgufParser(absl::Span<const uint8_t> prefix, int64_t file_size) : bytes_(prefix), file_size_(file_size) {}

  absl::StatusOr<GgufHeader> Run() {
    SEXTANT_RETURN_IF_ERROR(ReadCounts());
    for (int64_t i = 0; i < key_count_; ++i) SEXTANT_RETURN_IF_ERROR(ReadPair());
    SEXTANT_RETURN_IF_ERROR(ReadAlignment());
    for (int64_t i = 0; i < tensor_count_; ++i) SEXTANT_RETURN_IF_ERROR(ReadTensor());
    SEXTANT_RETURN_IF_ERROR(PlaceTensors());
    return std::move(header_);
  }

 private:
  using Value = GgufHeader::Value;

  // Points at `count` bytes and steps over them.
  absl::StatusOr<const uint8_t*> Take(int64_t count) {
    if (count < 0 || count > file_size_ - position_) {
      return Invalid("GGUF_TRUNCATED", absl::StrCat("the header needs ", count, " bytes at ", position_,
                                                    ", the file has ", file_size_));
    }
    if (position_ + count > static_cast<int64_t>(bytes_.size())) {
      return absl::OutOfRangeError("the GGUF header goes on behind the bytes given");
    }
    const uint8_t* place = bytes_.data() + position_;
    position_ += count;
    return place;
  }

  template <typename T>
  absl::StatusOr<T> Number() {
    SEXTANT_ASSIGN_OR_RETURN(const uint8_t* place, Take(sizeof(T)));
    T value;
    std::memcpy(&value, place, sizeof value);
    return value;
  }

  absl::StatusOr<std::string> Text(int64_t max_bytes, absl::string_view reason, absl::string_view what) {
    SEXTANT_ASSIGN_OR_RETURN(const uint64_t size, Number<uint64_t>());
    if (size > static_cast<uint64_t>(max_bytes)) {
      return Invalid(reason, absl::StrCat(what, " of ", size, " bytes; at most ", max_bytes, " are read"));
    }
    SEXTANT_ASSIGN_OR_RETURN(const uint8_t* place, Take(static_cast<int64_t>(size)));
    return std::string(reinterpret_cast<const char*>(place), size);
  }

  absl::Status ReadCounts() {
    if (file_size_ < 24) return Invalid("GGUF_TRUNCATED", "shorter than a GGUF header");
    SEXTANT_ASSIGN_OR_RETURN(const uint8_t* magic, Take(4));
    if (std::memcmp(magic, "GGUF", 4) != 0) return Invalid("GGUF_MAGIC", "does not begin with GGUF");
    SEXTANT_ASSIGN_OR_RETURN(const uint32_t version, Number<uint32_t>());
    if (version != 0 && (version & 0xffff) == 0) {
      return Invalid("GGUF_VERSION", "is big-endian; convert it to a little-endian file");
    }
    if (version != 2 && version != 3) {
      return Invalid("GGUF_VERSION", absl::StrCat("has version ", version, "; 2 and 3 are read, convert it"));
    }
    SEXTANT_ASSIGN_OR_RETURN(tensor_count_, Number<int64_t>());
    SEXTANT_ASSIGN_OR_RETURN(key_count_, Number<int64_t>());
    if (tensor_count_ < 0 || tensor_count_ > kMaxTensors) {
      return Invalid("GGUF_COUNT", absl::StrCat(tensor_count_, " tensors; 0 to ", kMaxTensors, " are read"));
    }
    if (key_count_ < 0 || key_count_ > kMaxKeys) {
      return Invalid("GGUF_COUNT", absl::StrCat(key_count_, " metadata keys; 0 to ", kMaxKeys, " are read"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadPair() {
    SEXTANT_ASSIGN_OR_RETURN(std::string key, Text(kMaxKeyBytes, "GGUF_KEY", "a metadata key"));
    if (key.empty()) return Invalid("GGUF_KEY", "a metadata key is empty");
    SEXTANT_ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>());
    if (key == "general.alignment" && type != kU32) {
      return Invalid("GGUF_ALIGNMENT", "general.alignment is not a uint32");
    }
    auto value = type == kArray ? ReadArray(key) : ReadScalar(key, type);
    if (!value.ok()) return std::move(value).status();
    if (!header_.values_.emplace(key, *std::move(value)).second) {
      return Invalid("GGUF_KEY_DUPLICATE", absl::StrCat("the key \"", key, "\" is given twice"));
    }
    return absl::OkStatus();
  }

  template <typename T>
  absl::StatusOr<int64_t> Integer(const std::string& key) {
    SEXTANT_ASSIGN_OR_RETURN(const T value, Number<T>());
    if constexpr (std::is_same_v<T, uint64_t>) {
      if (value > static_cast<uint64_t>(INT64_MAX)) {
        return Invalid("GGUF_VALUE", absl::StrCat("\"", key, "\" is above 2^63 - 1"));
      }
    }
    return static_cast<int64_t>(value);
  }

  absl::StatusOr<bool> Boolean(const std::string& key) {
    SEXTANT_ASSIGN_OR_RETURN(const uint8_t value, Number<uint8_t>());
    if (value > 1) return Invalid("GGUF_VALUE", absl::StrCat("\"", key, "\" is a bool of value ", value));
    return value == 1;
  }

  absl::StatusOr<int64_t> AnyInteger(const std::string& key, uint32_t type) {
    switch (type) {
      case kU8:
        return Integer<uint8_t>(key);
      case kI8:
        return Integer<int8_t>(key);
      case kU16:
        return Integer<uint16_t>(key);
      case kI16:
        return Integer<int16_t>(key);
      case kU32:
        return Integer<uint32_t>(key);
      case kI32:
        return Integer<int32_t>(key);
      case kU64:
        return Integer<uint64_t>(key);
      default:
        return Integer<int64_t>(key);
    }
  }

  // Bytes of one value of a fixed-size type; 0 when the type has no fixed size.
  static int64_t ScalarBytes(uint32_t type) {
    switch (type) {
      case kU8:
      case kI8:
      case kBool:
        return 1;
      case kU16:
      case kI16:
        return 2;
      case kU32:
      case kI32:
      case kF32:
        return 4;
      case kU64:
      case kI64:
      case kF64:
        return 8;
      default:
        return 0;
    }
  }

  absl::StatusOr<Value> ReadScalar(const std::string& key, uint32_t type) {
    if (type == kString) {
      SEXTANT_ASSIGN_OR_RETURN(std::string text, Text(kMaxStringBytes, "GGUF_VALUE", "a string"));
      return Value(std::move(text));
    }
    if (ScalarBytes(type) == 0) {
      return Invalid("GGUF_VALUE_TYPE", absl::StrCat("\"", key, "\" has the unknown value type ", type));
    }
    if (type == kBool) {
      SEXTANT_ASSIGN_OR_RETURN(const bool value, Boolean(key));
      return Value(value);
    }
    if (type == kF32) {
      SEXTANT_ASSIGN_OR_RETURN(const float value, Number<float>());
      return Value(static_cast<double>(value));
    }
    if (type == kF64) {
      SEXTANT_ASSIGN_OR_RETURN(const double value, Number<double>());
      return Value(value);
    }
    SEXTANT_ASSIGN_OR_RETURN(const int64_t value, AnyInteger(key, type));
    return Value(value);
  }

  absl::StatusOr<Value> ReadArray(const std::string& key) {
    SEXTANT_ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>());
    SEXTANT_ASSIGN_OR_RETURN(const uint64_t count, Number<uint64_t>());
    if (type != kString && ScalarBytes(type) == 0) {
      return Invalid("GGUF_VALUE_TYPE", absl::StrCat("\"", key, "\" is an array of the unknown type ", type));
    }
    if (count > static_cast<uint64_t>(kMaxElements)) {
      return Invalid("GGUF_VALUE", absl::StrCat("\"", key, "\" has ", count, " elements; at most ",
                                                kMaxElements, " are read"));
    }
    // Nothing is allocated for elements that the file cannot hold. A string needs at least its length field.
    const int64_t least_bytes = type == kString ? 8 : ScalarBytes(type);
    if (static_cast<int64_t>(count) * least_bytes > file_size_ - position_) {
      return Invalid("GGUF_TRUNCATED",
                     absl::StrCat("\"", key, "\" has more elements than the file has bytes"));
    }
    if (type == kString) return ReadElements<std::string>(key, type, count);
    if (type == kF32 || type == kF64) return ReadElements<double>(key, type, count);
    return ReadElements<int64_t>(key, type, count);
  }

  template <typename T>
  absl::StatusOr<Value> ReadElements(const std::string& key, uint32_t type, uint64_t count) {
    std::vector<T> elements;
    elements.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, std::string>) {
        SEXTANT_ASSIGN_OR_RETURN(std::string text, Text(kMaxStringBytes, "GGUF_VALUE", "a string"));
        elements.push_back(std::move(text));
      } else if constexpr (std::is_same_v<T, double>) {
        if (type == kF32) {
          SEXTANT_ASSIGN_OR_RETURN(const float value, Number<float>());
          elements.push_back(value);
        } else {
          SEXTANT_ASSIGN_OR_RETURN(const double value, Number<double>());
          elements.push_back(value);
        }
      } else if (type == kBool) {
        SEXTANT_ASSIGN_OR_RETURN(const bool value, Boolean(key));
        elements.push_back(value ? 1 : 0);
      } else {
        SEXTANT_ASSIGN_OR_RETURN(const int64_t value, AnyInteger(key, type));
        elements.push_back(value);
      }
    }
    return Value(std::move(elements));
  }

  absl::Status ReadAlignment() {
    if (!header_.Has("general.alignment")) return absl::OkStatus();
    SEXTANT_ASSIGN_OR_RETURN(alignment_, header_.Integer("general.alignment"));
    if (alignment_ < 1 || alignment_ > kMaxAlignment || (alignment_ & (alignment_ - 1)) != 0) {
      return Invalid("GGUF_ALIGNMENT", absl::StrCat("general.alignment is ", alignment_,
                                                    "; it must be a power of two up to ", kMaxAlignment));
    }
    return absl::OkStatus();
  }

  absl::Status ReadTensor() {
    GgufTensor tensor;
    SEXTANT_ASSIGN_OR_RETURN(tensor.name, Text(kMaxTensorNameBytes, "GGUF_TENSOR_NAME", "a tensor name"));
    if (tensor.name.empty()) return Invalid("GGUF_TENSOR_NAME", "a tensor name is empty");
    if (!header_.index_.emplace(tensor.name, header_.tensors_.size()).second) {
      return Invalid("GGUF_TENSOR_DUPLICATE",
                     absl::StrCat("the tensor \"", tensor.name, "\" is listed twice"));
    }
    SEXTANT_ASSIGN_OR_RETURN(const uint32_t dim_count, Number<uint32_t>());
    if (dim_count < 1 || dim_count > kMaxDimensions) {
      return Invalid("GGUF_TENSOR_SHAPE", absl::StrCat("tensor \"", tensor.name, "\" has ", dim_count,
                                                       " dimensions; 1 to ", kMaxDimensions, " are read"));
    }
    tensor.rows = 1;
    for (uint32_t i = 0; i < dim_count; ++i) {
      SEXTANT_ASSIGN_OR_RETURN(const int64_t dim, Number<int64_t>());
      if (dim < 1) {
        return Invalid("GGUF_TENSOR_SHAPE",
                       absl::StrCat("tensor \"", tensor.name, "\" has a dimension of ", dim));
      }
      if (i == 0) {
        tensor.cols = dim;
      } else if (const auto rows = CheckedMultiply(tensor.rows, dim); rows.has_value()) {
        tensor.rows = *rows;
      } else {
        return Invalid("GGUF_TENSOR_SHAPE",
                       absl::StrCat("the shape of tensor \"", tensor.name, "\" overflows"));
      }
    }
    SEXTANT_ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>());
    if (!IsSupported(type)) {
      return Invalid("GGUF_TENSOR_TYPE",
                     absl::StrCat("tensor \"", tensor.name, "\" has encoding ", type,
                                  "; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are read, convert it"));
    }
    tensor.type = static_cast<GgufTensorType>(type);
    const GgufBlock block = BlockOf(tensor.type);
    if (tensor.cols % block.elements != 0) {
      return Invalid("GGUF_TENSOR_SHAPE",
                     absl::StrCat("tensor \"", tensor.name, "\" has rows of ", tensor.cols,
                                  " elements, no whole number of blocks of ", block.elements));
    }
    const auto row_bytes = CheckedMultiply(tensor.cols / block.elements, block.bytes);
    const auto bytes = row_bytes.has_value() ? CheckedMultiply(*row_bytes, tensor.rows) : std::nullopt;
    if (!bytes.has_value() || !CheckedMultiply(tensor.rows, tensor.cols).has_value()) {
      return Invalid("GGUF_TENSOR_SHAPE", absl::StrCat("the size of tensor \"", tensor.name, "\" overflows"));
    }
    tensor.bytes = *bytes;
    SEXTANT_ASSIGN_OR_RETURN(const uint64_t offset, Number<uint64_t>());
    offsets_.push_back(offset);
    header_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  // Tensors must follow each other without hole or overlap: anything else is damage, or one range read many
  // times.
  absl::Status PlaceTensors() {
    const auto data_start = CheckedRoundUp(position_, alignment_);
    if (!data_start.has_value()) return Invalid("GGUF_TENSOR_OUT_OF_FILE", "the data's start overflows");
    int64_t next = *data_start;
    for (size_t i = 0; i < header_.tensors_.size(); ++i) {
      GgufTensor& tensor = header_.tensors_[i];
      if (offsets_[i] != static_cast<uint64_t>(next - *data_start)) {
        return Invalid("GGUF_TENSOR_OFFSET", absl::StrCat("tensor \"", tensor.name, "\" is at offset ",
                                                          offsets_[i], ", expected ", next - *data_start));
      }
      const auto end = CheckedAdd(next, tensor.bytes);
      if (!end.has_value() || *end > file_size_) {
        return Invalid("GGUF_TENSOR_OUT_OF_FILE",
                       absl::StrCat("tensor \"", tensor.name,
                                    "\" ends behind the file's end; it is damaged or incomplete"));
      }
      tensor.offset = next;
      const auto padded = CheckedRoundUp(*end - *data_start, alignment_);
      const auto following = padded.has_value() ? CheckedAdd(*data_start, *padded) : std::nullopt;
      if (!following.has_value()) return Invalid("GGUF_TENSOR_OUT_OF_FILE", "the tensors' sizes overflow");
      next = *following;
    }
    return absl::OkStatus();
  }

  absl::Span<const uint8_t> bytes_;
  const int64_t file_size_;
  int64_t position_ = 0;
  int64_t tensor_count_ = 0;
  int64_t key_count_ = 0;
  int64_t alignment_ = 32;
  std::vector<uint64_t> offsets_;
  GgufHeader header_;
};

absl::StatusOr<GgufHeader> GgufHeader::Parse(absl::Span<const uint8_t> prefix, int64_t file_size) {
  SEXTANT_CHECK_LE(static_cast<int64_t>(prefix.size()), file_size);
  return GgufParser(prefix, file_size).Run();
}

absl::StatusOr<GgufHeader> GgufHeader::Read(const WeightFile& file) {
  for (int64_t size = kFirstReadBytes;; size *= 4) {
    std::vector<uint8_t> prefix(static_cast<size_t>(std::min(size, file.size())));
    SEXTANT_RETURN_IF_ERROR(file.Read(0, absl::MakeSpan(prefix)));
    absl::StatusOr<GgufHeader> header = Parse(prefix, file.size());
    if (header.ok()) return header;
    if (!absl::IsOutOfRange(header.status())) return FaultInFile(file.path(), header.status());
    if (size >= kMaxHeaderBytes) {
      return FaultInFile(file.path(), Invalid("GGUF_COUNT", "the header is longer than 1 GiB"));
    }
  }
}

template <typename T>
absl::StatusOr<const T*> GgufHeader::Get(const std::string& key, const char* kind) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return Invalid("GGUF_KEY_MISSING", absl::StrCat("there is no \"", key, "\""));
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) return Invalid("GGUF_KEY_TYPE", absl::StrCat("\"", key, "\" is not ", kind));
  return value;
}

absl::StatusOr<std::string> GgufHeader::String(const std::string& key) const {
  SEXTANT_ASSIGN_OR_RETURN(const std::string* value, Get<std::string>(key, "a string"));
  return *value;
}

absl::StatusOr<int64_t> GgufHeader::Integer(const std::string& key) const {
  SEXTANT_ASSIGN_OR_RETURN(const int64_t* value, Get<int64_t>(key, "an integer"));
  return *value;
}

absl::StatusOr<double> GgufHeader::Float(const std::string& key) const {
  SEXTANT_ASSIGN_OR_RETURN(const double* value, Get<double>(key, "a float"));
  return *value;
}

absl::StatusOr<bool> GgufHeader::Boolean(const std::string& key) const {
  SEXTANT_ASSIGN_OR_RETURN(const bool* value, Get<bool>(key, "a bool"));
  return *value;
}

absl::StatusOr<const std::vector<std::string>*> GgufHeader::Strings(const std::string& key) const {
  return Get<std::vector<std::string>>(key, "an array of strings");
}

absl::StatusOr<const std::vector<int64_t>*> GgufHeader::Integers(const std::string& key) const {
  return Get<std::vector<int64_t>>(key, "an array of integers");
}

absl::StatusOr<const std::vector<double>*> GgufHeader::Floats(const std::string& key) const {
  return Get<std::vector<double>>(key, "an array of floats");
}

const GgufTensor* GgufHeader::Find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace sextant
