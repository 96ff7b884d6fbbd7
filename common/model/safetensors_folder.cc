// Models of several safetensors shards.
#include <sys/stat.h>

#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/safetensors.h"
#include "common/model/strict_json.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using nlohmann::json;

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSingleName[] = "model.safetensors";
constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 2048;  // each holds a file open

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "SAFETENSORS_INDEX",
                   absl::StrCat(kIndexName, ": ", message));
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// A name that stays in the folder. Symbolic links are followed: hub caches are made of them.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// Shard -> the tensors that the index expects in it.
absl::StatusOr<std::map<std::string, std::set<std::string>>> ParseIndex(const std::string& text) {
  StrictJsonLimits limits;
  limits.max_bytes = kMaxIndexBytes;
  SEXTANT_ASSIGN_OR_RETURN(const json document,
                           ParseStrictJson(text, kIndexName, "SAFETENSORS_INDEX", limits));
  if (!document.is_object() || !document.contains("weight_map") || !document["weight_map"].is_object()) {
    return Invalid("there is no weight_map object");
  }
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& entry : document["weight_map"].items()) {
    if (!entry.value().is_string())
      return Invalid(absl::StrCat("\"", entry.key(), "\" is not mapped to a file name"));
    const std::string& name = entry.value().get_ref<const std::string&>();
    if (!IsPlainName(name)) {
      return Invalid(absl::StrCat("\"", entry.key(), "\" is mapped outside the folder"));
    }
    shards[name].insert(entry.key());
  }
  if (shards.empty()) return Invalid("weight_map is empty");
  if (shards.size() > kMaxShards) return Invalid(absl::StrCat("more than ", kMaxShards, " shards"));
  return shards;
}

}  // namespace

absl::StatusOr<SafetensorsFolder> SafetensorsFolder::Open(const std::string& folder) {
  std::map<std::string, std::set<std::string>> shards;
  const std::string index_path = absl::StrCat(folder, "/", kIndexName);
  if (Exists(index_path)) {
    SEXTANT_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(index_path, kMaxIndexBytes));
    SEXTANT_ASSIGN_OR_RETURN(shards, ParseIndex(text));
  } else {
    shards[kSingleName] = {};
  }
  SafetensorsFolder result;
  for (const auto& [name, expected] : shards) {
    SEXTANT_ASSIGN_OR_RETURN(SafetensorsFile opened, SafetensorsFile::Open(absl::StrCat(folder, "/", name)));
    result.files_.push_back(std::make_unique<SafetensorsFile>(std::move(opened)));
    const SafetensorsFile* file = result.files_.back().get();
    for (const SafetensorsTensor& tensor : file->tensors()) {
      if (!result.places_.emplace(tensor.name, SafetensorsPlace{file, &tensor}).second) {
        return Invalid(absl::StrCat("tensor \"", tensor.name, "\" is in two shards"));
      }
    }
    for (const std::string& tensor : expected) {
      if (file->Find(tensor) == nullptr) {
        return Invalid(absl::StrCat("tensor \"", tensor, "\" is not in ", name, ", where the index puts it"));
      }
    }
  }
  return result;
}

SafetensorsPlace SafetensorsFolder::Find(const std::string& name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? SafetensorsPlace{} : found->second;
}

}  // namespace sextant
