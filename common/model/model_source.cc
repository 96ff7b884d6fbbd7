// One view of a model on disk, Hugging Face folder or GGUF file alike: its spec and its weights by meaning.
#include "common/model/model_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/gguf_source.h"
#include "common/model/hf_source.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Bytes read from a file at a time.
constexpr int64_t kReadBytes = 1 << 20;

absl::Status CheckFinite(const std::string& name, const float* values, int64_t count) {
  // An exponent of all ones is infinity or NaN. Without a branch in the loop, it is vectorized.
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  if (found == 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_WEIGHTS_NOT_FINITE",
                   absl::StrCat("tensor \"", name, "\" holds NaN or infinity; the model file is damaged"));
}

// Whether a model's path is a folder, as opposed to a .gguf file.
absl::StatusOr<bool> IsFolder(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return MakeError(
        absl::StatusCode::kNotFound, "MODEL_FILE_MISSING",
        absl::StrCat("there is no model at \"", path, "\"; give a Hugging Face folder or a .gguf file"));
  }
  if (!S_ISDIR(info.st_mode) && absl::EndsWith(path, ".safetensors")) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "MODEL_UNSUPPORTED",
        absl::StrCat(path, " is one file of a model; give the folder that also holds config.json"));
  }
  return S_ISDIR(info.st_mode);
}

}  // namespace

WeightShape ShapeOf(const ModelSpec& spec, WeightKind kind) {
  const int64_t query_width = spec.head_count * spec.head_dim;
  const int64_t kv_width = spec.kv_head_count * spec.head_dim;
  switch (kind) {
    case WeightKind::kEmbedding:
    case WeightKind::kHead:
      return {spec.vocab_size, spec.hidden_size};
    case WeightKind::kFinalNorm:
    case WeightKind::kAttentionNorm:
    case WeightKind::kMlpNorm:
      return {1, spec.hidden_size};
    case WeightKind::kQuery:
      return {query_width, spec.hidden_size};
    case WeightKind::kKey:
    case WeightKind::kValue:
      return {kv_width, spec.hidden_size};
    case WeightKind::kQueryBias:
      return {1, query_width};
    case WeightKind::kKeyBias:
    case WeightKind::kValueBias:
      return {1, kv_width};
    case WeightKind::kQueryNorm:
    case WeightKind::kKeyNorm:
      return {1, spec.head_dim};
    case WeightKind::kAttentionOutput:
      return {spec.hidden_size, query_width};
    case WeightKind::kGate:
    case WeightKind::kUp:
      return {spec.feed_forward_size, spec.hidden_size};
    case WeightKind::kDown:
      return {spec.hidden_size, spec.feed_forward_size};
  }
  return {};
}

std::vector<WeightId> WeightsOf(const ModelSpec& spec) {
  std::vector<WeightKind> kinds = {WeightKind::kAttentionNorm,   WeightKind::kQuery,   WeightKind::kKey,
                                   WeightKind::kValue,           WeightKind::kMlpNorm, WeightKind::kGate,
                                   WeightKind::kAttentionOutput, WeightKind::kUp,      WeightKind::kDown};
  if (spec.qkv_bias) {
    kinds.insert(kinds.end(), {WeightKind::kQueryBias, WeightKind::kKeyBias, WeightKind::kValueBias});
  }
  if (spec.qk_norm) kinds.insert(kinds.end(), {WeightKind::kQueryNorm, WeightKind::kKeyNorm});
  std::vector<WeightId> ids = {{WeightKind::kEmbedding, 0}, {WeightKind::kFinalNorm, 0}};
  if (!spec.tied_head) ids.push_back({WeightKind::kHead, 0});
  for (int32_t layer = 0; layer < spec.layer_count; ++layer) {
    for (const WeightKind kind : kinds) ids.push_back({kind, layer});
  }
  return ids;
}

absl::StatusOr<StoredWeight> ModelSource::Checked(WeightId id) const {
  if (id.kind == WeightKind::kHead && spec_.tied_head) id.kind = WeightKind::kEmbedding;
  SEXTANT_ASSIGN_OR_RETURN(StoredWeight stored, Locate(id));
  const WeightShape want = ShapeOf(spec_, id.kind);
  if (stored.shape.rows != want.rows || stored.shape.cols != want.cols) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "MODEL_TENSOR_SHAPE",
        absl::StrCat("tensor \"", stored.name, "\" is ", stored.shape.rows, " x ", stored.shape.cols,
                     "; the model's configuration asks for ", want.rows, " x ", want.cols));
  }
  return stored;
}

absl::Status ModelSource::CheckAllWeights() const {
  std::set<std::string> used;
  for (const WeightId id : WeightsOf(spec_)) {
    SEXTANT_ASSIGN_OR_RETURN(const StoredWeight stored, Checked(id));
    used.insert(stored.name);
  }
  // A weight that nothing reads, a bias say, means that the model is not what its configuration says.
  for (const std::string& name : TensorNames()) {
    if (used.count(name) != 0 || IsIgnorable(name)) continue;
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_UNSUPPORTED",
                     absl::StrCat("the model has a tensor \"", name, "\", which a ", spec_.family,
                                  " model of its configuration does not use"));
  }
  return absl::OkStatus();
}

absl::StatusOr<RowSource> ModelSource::Rows(WeightId id) const {
  SEXTANT_ASSIGN_OR_RETURN(StoredWeight stored, Checked(id));
  return RowSource([stored = std::move(stored)](int64_t first, int64_t count, float* out) -> absl::Status {
    const int64_t cols = stored.shape.cols;
    const int64_t step = std::max<int64_t>(1, kReadBytes / stored.row_bytes);
    std::vector<uint8_t> bytes;
    for (int64_t done = 0; done < count;) {
      const int64_t rows = std::min(step, count - done);
      bytes.resize(static_cast<size_t>(rows * stored.row_bytes));
      SEXTANT_RETURN_IF_ERROR(stored.read_rows(first + done, rows, bytes.data()));
      float* place = out + done * cols;
      stored.decode(bytes, rows, place);
      SEXTANT_RETURN_IF_ERROR(CheckFinite(stored.name, place, rows * cols));
      done += rows;
    }
    return absl::OkStatus();
  });
}

absl::Status ModelSource::HashStored(WeightId id, Sha256& hash) const {
  SEXTANT_ASSIGN_OR_RETURN(const StoredWeight stored, Checked(id));
  hash.Update(stored.encoding);
  const int64_t step = std::max<int64_t>(1, kReadBytes / stored.row_bytes);
  std::vector<uint8_t> bytes;
  for (int64_t first = 0; first < stored.shape.rows; first += step) {
    const int64_t rows = std::min(step, stored.shape.rows - first);
    bytes.resize(static_cast<size_t>(rows * stored.row_bytes));
    SEXTANT_RETURN_IF_ERROR(stored.read_rows(first, rows, bytes.data()));
    hash.Update(absl::MakeConstSpan(bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ModelSource>> OpenModel(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(const bool is_folder, IsFolder(path));
  std::unique_ptr<ModelSource> source;
  if (is_folder) {
    SEXTANT_ASSIGN_OR_RETURN(source, OpenHfModel(path));
  } else {
    SEXTANT_ASSIGN_OR_RETURN(source, OpenGgufModel(path));
  }
  SEXTANT_RETURN_IF_ERROR(source->CheckAllWeights());
  return source;
}

absl::StatusOr<ModelSpec> ReadModelSpec(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(const bool is_folder, IsFolder(path));
  if (is_folder) return ReadHfSpec(path);
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source, OpenGgufModel(path));
  return source->spec();
}

}  // namespace sextant
