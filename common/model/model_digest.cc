// Digests that say whether two processes hold the same weights, remembered between starts.
#include "common/model/model_digest.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr char kCacheVersion[] = "sextant-model-digest-1";
constexpr int64_t kReadBytes = 1 << 20;

std::string Hex(const std::string& bytes) { return absl::BytesToHexString(bytes); }

absl::StatusOr<std::string> HashFile(const WeightFile& file) {
  Sha256 hash;
  std::vector<uint8_t> bytes;
  for (int64_t offset = 0; offset < file.size(); offset += kReadBytes) {
    bytes.resize(static_cast<size_t>(std::min(kReadBytes, file.size() - offset)));
    SEXTANT_RETURN_IF_ERROR(file.Read(offset, absl::MakeSpan(bytes)));
    hash.Update(absl::MakeConstSpan(bytes));
  }
  SEXTANT_RETURN_IF_ERROR(file.CheckUnchanged());
  return Hex(hash.Finish());
}

absl::StatusOr<std::string> HashWeights(const ModelSource& source) {
  const std::vector<const WeightFile*> files = source.files();
  if (files.size() == 1) return HashFile(*files[0]);
  std::string lines;
  for (const WeightFile* file : files) {
    SEXTANT_ASSIGN_OR_RETURN(const std::string hex, HashFile(*file));
    absl::StrAppend(&lines, hex, "  ", std::filesystem::path(file->path()).filename().string(), "\n");
  }
  return Sha256Hex(lines);
}

// Names the state of all files that the digests were made of.
std::string CacheKey(const ModelSource& source) {
  std::string key = absl::StrCat(kCacheVersion, "\n", source.spec().tied_head ? "tied" : "untied", " eps ",
                                 source.spec().norm_eps, "\n");
  for (const WeightFile* file : source.files()) {
    std::error_code error;
    const std::string path = std::filesystem::absolute(file->path(), error).string();
    absl::StrAppend(&key, path, "\n", file->size(), " ", file->mtime_ns(), " ", file->ctime_ns(), " ",
                    file->inode(), "\n");
  }
  return Sha256Hex(key);
}

std::optional<ModelDigest> ReadCache(const std::string& path) {
  std::ifstream in(path);
  std::string version, weights, lens;
  if (!(in >> version >> weights >> lens) || version != kCacheVersion) return std::nullopt;
  const bool hex = weights.find_first_not_of("0123456789abcdef") == std::string::npos &&
                   lens.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!hex || weights.size() != 64 || lens.size() != 64) return std::nullopt;
  return ModelDigest{weights, absl::HexStringToBytes(lens)};
}

void WriteCache(const std::string& folder, const std::string& path, const ModelDigest& digest) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  // Renamed into place, so that a reader sees the old file or the whole new one.
  const std::string temporary = absl::StrCat(path, ".", getpid());
  std::ofstream out(temporary);
  out << kCacheVersion << "\n" << digest.weights_sha256 << "\n" << Hex(digest.lens_digest) << "\n";
  out.close();
  if (out.good()) std::filesystem::rename(temporary, path, ignored);
  std::filesystem::remove(temporary, ignored);
}

}  // namespace

absl::StatusOr<std::string> LensDigest(const ModelSource& source) {
  const ModelSpec& spec = source.spec();
  uint32_t eps_bits;
  std::memcpy(&eps_bits, &spec.norm_eps, sizeof eps_bits);
  Sha256 hash;
  hash.Update(absl::StrCat("sextant-lens-1 ", spec.hidden_size, " ", spec.vocab_size, " ",
                           absl::Hex(eps_bits), "\n"));
  SEXTANT_RETURN_IF_ERROR(source.HashStored({WeightKind::kFinalNorm, 0}, hash));
  SEXTANT_RETURN_IF_ERROR(source.HashStored({WeightKind::kHead, 0}, hash));
  return hash.Finish();
}

absl::StatusOr<ModelDigest> DigestModel(const ModelSource& source, const std::string& cache_dir) {
  const std::string path = cache_dir.empty() ? "" : absl::StrCat(cache_dir, "/", CacheKey(source), ".digest");
  if (!path.empty()) {
    if (std::optional<ModelDigest> cached = ReadCache(path)) return *std::move(cached);
  }
  ModelDigest digest;
  SEXTANT_ASSIGN_OR_RETURN(digest.weights_sha256, HashWeights(source));
  SEXTANT_ASSIGN_OR_RETURN(digest.lens_digest, LensDigest(source));
  // Norm and head were read a second time: both digests must be of the same bytes.
  for (const WeightFile* file : source.files()) SEXTANT_RETURN_IF_ERROR(file->CheckUnchanged());
  if (!path.empty()) WriteCache(cache_dir, path, digest);
  return digest;
}

}  // namespace sextant
