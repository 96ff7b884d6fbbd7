// Safetensors files: the header of one file, and models of several shards.
#include "common/model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/checked_math.h"
#include "common/model/strict_json.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using nlohmann::json;

constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int kMaxHeaderDepth = 8;
constexpr size_t kMaxDimensions = 8;
// JSON numbers are doubles to many writers; above 2^53 they are no longer what was meant.
constexpr uint64_t kMaxJsonInteger = uint64_t{1} << 53;

struct DTypeName {
  const char* name;
  SafetensorsDType dtype;
  int bits;
};
constexpr DTypeName kDTypes[] = {
    {"BOOL", SafetensorsDType::kBool, 8},      {"U8", SafetensorsDType::kU8, 8},
    {"I8", SafetensorsDType::kI8, 8},          {"F8_E5M2", SafetensorsDType::kF8E5M2, 8},
    {"F8_E4M3", SafetensorsDType::kF8E4M3, 8}, {"F8_E8M0", SafetensorsDType::kF8E8M0, 8},
    {"F4", SafetensorsDType::kF4, 4},          {"F6_E2M3", SafetensorsDType::kF6E2M3, 6},
    {"F6_E3M2", SafetensorsDType::kF6E3M2, 6}, {"I16", SafetensorsDType::kI16, 16},
    {"U16", SafetensorsDType::kU16, 16},       {"F16", SafetensorsDType::kF16, 16},
    {"BF16", SafetensorsDType::kBF16, 16},     {"I32", SafetensorsDType::kI32, 32},
    {"U32", SafetensorsDType::kU32, 32},       {"F32", SafetensorsDType::kF32, 32},
    {"F64", SafetensorsDType::kF64, 64},       {"I64", SafetensorsDType::kI64, 64},
    {"U64", SafetensorsDType::kU64, 64},       {"C64", SafetensorsDType::kC64, 64},
};

absl::Status Invalid(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, absl::StrCat("safetensors: ", message));
}

// A whole number in [0, 2^53], or nothing.
std::optional<int64_t> WholeNumber(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const uint64_t number = value.get<uint64_t>();
  if (number > kMaxJsonInteger) return std::nullopt;
  return static_cast<int64_t>(number);
}

absl::Status CheckMetadata(const json& metadata) {
  if (!metadata.is_object()) return Invalid("SAFETENSORS_HEADER", "__metadata__ is not an object");
  for (const auto& entry : metadata.items()) {
    if (!entry.value().is_string()) {
      return Invalid("SAFETENSORS_HEADER",
                     absl::StrCat("__metadata__ \"", entry.key(), "\" is not a string"));
    }
  }
  return absl::OkStatus();
}

// The bytes a tensor of this shape takes.
absl::StatusOr<int64_t> ParseShape(const json& shape, int bits, SafetensorsTensor& tensor) {
  const auto fail = [&](absl::string_view fault) {
    return Invalid("SAFETENSORS_SHAPE", absl::StrCat("tensor \"", tensor.name, "\": ", fault));
  };
  if (!shape.is_array() || shape.size() > kMaxDimensions) {
    return fail(absl::StrCat("shape is not an array of at most ", kMaxDimensions, " numbers"));
  }
  // Overflow is looked for over the non-zero dimensions alone: a zero among them must not hide it.
  int64_t elements = 1;
  bool empty = false;
  for (const json& value : shape) {
    const std::optional<int64_t> dim = WholeNumber(value);
    if (!dim.has_value()) return fail("a dimension is no whole number from 0 to 2^53");
    tensor.shape.push_back(*dim);
    if (*dim == 0) {
      empty = true;
      continue;
    }
    const std::optional<int64_t> product = CheckedMultiply(elements, *dim);
    if (!product.has_value()) return fail("the shape's product overflows");
    elements = *product;
  }
  const std::optional<int64_t> total_bits = CheckedMultiply(elements, bits);
  if (!total_bits.has_value()) return fail("the shape's size overflows");
  if (empty) return 0;
  if (*total_bits % 8 != 0) return fail("the elements do not fill whole bytes");
  return *total_bits / 8;
}

absl::StatusOr<SafetensorsTensor> ParseTensor(const std::string& name, const json& entry,
                                              int64_t data_bytes) {
  SafetensorsTensor tensor;
  tensor.name = name;
  const auto fail = [&](absl::string_view reason, absl::string_view fault) {
    return Invalid(reason, absl::StrCat("tensor \"", name, "\": ", fault));
  };
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return fail("SAFETENSORS_TENSOR", "must have exactly dtype, shape and data_offsets");
  }
  const json& dtype = entry["dtype"];
  const auto* known = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const DTypeName& candidate) {
    return dtype.is_string() && dtype.get_ref<const std::string&>() == candidate.name;
  });
  if (known == std::end(kDTypes)) return fail("SAFETENSORS_DTYPE", "unknown dtype");
  tensor.dtype = known->dtype;
  SEXTANT_ASSIGN_OR_RETURN(const int64_t bytes, ParseShape(entry["shape"], known->bits, tensor));

  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2)
    return fail("SAFETENSORS_OFFSETS", "data_offsets is not a pair");
  const std::optional<int64_t> begin = WholeNumber(offsets[0]);
  const std::optional<int64_t> end = WholeNumber(offsets[1]);
  if (!begin.has_value() || !end.has_value()) {
    return fail("SAFETENSORS_OFFSETS", "an offset is no whole number from 0 to 2^53");
  }
  if (*end < *begin) return fail("SAFETENSORS_OFFSETS", "ends before it begins");
  if (*end > data_bytes) {
    return fail("SAFETENSORS_OFFSETS", "ends behind the file's end; the file is damaged or incomplete");
  }
  if (*end - *begin != bytes) {
    return fail("SAFETENSORS_SIZE",
                absl::StrCat("has ", *end - *begin, " bytes where its shape needs ", bytes));
  }
  tensor.begin = *begin;
  tensor.end = *end;
  return tensor;
}

// Every byte of the data belongs to exactly one tensor: a range read twice costs memory that the file's size
// does not show, and bytes outside all tensors can be another format's file.
absl::Status CheckLayout(const std::vector<SafetensorsTensor>& tensors, int64_t data_bytes) {
  std::vector<const SafetensorsTensor*> ordered;
  for (const SafetensorsTensor& tensor : tensors) ordered.push_back(&tensor);
  std::sort(ordered.begin(), ordered.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    return std::make_pair(a->begin, a->end) < std::make_pair(b->begin, b->end);
  });
  int64_t covered = 0;
  for (const SafetensorsTensor* tensor : ordered) {
    if (tensor->begin < covered) {
      return Invalid("SAFETENSORS_LAYOUT", absl::StrCat("tensor \"", tensor->name, "\" overlaps another"));
    }
    if (tensor->begin > covered) {
      return Invalid("SAFETENSORS_LAYOUT",
                     absl::StrCat("there is a hole in front of tensor \"", tensor->name, "\""));
    }
    covered = tensor->end;
  }
  if (covered != data_bytes) {
    return Invalid("SAFETENSORS_LAYOUT",
                   absl::StrCat(data_bytes - covered, " bytes lie behind the last tensor"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensorsHeader(absl::string_view header,
                                                                      int64_t data_bytes) {
  if (header.empty() || header[0] != '{') {
    return Invalid("SAFETENSORS_HEADER", "the header does not begin with '{'");
  }
  StrictJsonLimits limits;
  limits.max_bytes = kMaxHeaderBytes;
  limits.max_depth = kMaxHeaderDepth;
  SEXTANT_ASSIGN_OR_RETURN(const json document,
                           ParseStrictJson(header, "safetensors: the header", "SAFETENSORS_HEADER", limits));
  std::vector<SafetensorsTensor> tensors;
  for (const auto& entry : document.items()) {
    if (entry.key() == "__metadata__") {
      SEXTANT_RETURN_IF_ERROR(CheckMetadata(entry.value()));
      continue;
    }
    SEXTANT_ASSIGN_OR_RETURN(SafetensorsTensor tensor, ParseTensor(entry.key(), entry.value(), data_bytes));
    tensors.push_back(std::move(tensor));
  }
  SEXTANT_RETURN_IF_ERROR(CheckLayout(tensors, data_bytes));
  return tensors;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(WeightFile opened, WeightFile::Open(path));
  SafetensorsFile file(std::move(opened));
  const int64_t size = file.file_.size();
  if (size < 8) return Invalid("SAFETENSORS_HEADER", absl::StrCat(path, " is shorter than 8 bytes"));
  uint8_t prefix[8];
  SEXTANT_RETURN_IF_ERROR(file.file_.Read(0, absl::MakeSpan(prefix)));
  uint64_t header_bytes;
  std::memcpy(&header_bytes, prefix, sizeof header_bytes);
  if (header_bytes > static_cast<uint64_t>(kMaxHeaderBytes)) {
    return Invalid("SAFETENSORS_HEADER", absl::StrCat(path, ": a header of ", header_bytes,
                                                      " bytes; at most ", kMaxHeaderBytes, " are read"));
  }
  if (static_cast<int64_t>(header_bytes) > size - 8) {
    return Invalid("SAFETENSORS_HEADER",
                   absl::StrCat(path, " ends within its header; it is damaged or incomplete"));
  }
  std::string header(header_bytes, '\0');
  SEXTANT_RETURN_IF_ERROR(
      file.file_.Read(8, absl::MakeSpan(reinterpret_cast<uint8_t*>(header.data()), header.size())));
  file.data_start_ = 8 + static_cast<int64_t>(header_bytes);
  auto tensors = ParseSafetensorsHeader(header, size - file.data_start_);
  if (!tensors.ok()) return FaultInFile(path, tensors.status());
  file.tensors_ = *std::move(tensors);
  for (size_t i = 0; i < file.tensors_.size(); ++i) file.index_.emplace(file.tensors_[i].name, i);
  return file;
}

const SafetensorsTensor* SafetensorsFile::Find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

absl::Status SafetensorsFile::Read(const SafetensorsTensor& tensor, int64_t offset,
                                   absl::Span<uint8_t> out) const {
  SEXTANT_CHECK(offset >= 0 && offset + static_cast<int64_t>(out.size()) <= tensor.end - tensor.begin);
  return file_.Read(data_start_ + tensor.begin + offset, out);
}

}  // namespace sextant
