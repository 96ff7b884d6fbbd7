// Digests that say whether two processes hold the same weights, remembered between starts.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/model/model_source.h"

namespace sextant {

struct ModelDigest {
  // 64 hex digits. Of one weight file: what sha256sum prints for it. Of several: the SHA-256 of the lines
  // "<hex>  <file name>\n" that sha256sum prints for them, sorted by name.
  std::string weights_sha256;
  // 32 bytes: SHA-256 of the shapes, norm epsilon, final norm and head as stored. A lens decoder may decode
  // rows of an engine exactly when their lens digests are equal.
  std::string lens_digest;
};

// Computes the digest of a model, or reads it from `cache_dir` (made if missing; "" for no cache) when path,
// inode, size, modification and change time of every weight file are what they were. A cache that cannot be
// read or written is only passed by. Errors: of reading the files; FAILED_PRECONDITION / MODEL_FILE_CHANGED.
absl::StatusOr<ModelDigest> DigestModel(const ModelSource& source, const std::string& cache_dir);

// The lens digest alone: reads only final norm and head.
absl::StatusOr<std::string> LensDigest(const ModelSource& source);

}  // namespace sextant
