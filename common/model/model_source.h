// One view of a model on disk, Hugging Face folder or GGUF file alike: its spec and its weights by meaning.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/sha256.h"
#include "common/model/model_spec.h"
#include "common/model/weight_file.h"
#include "kernels/backend.h"

namespace sextant {

enum class WeightKind {
  kEmbedding,
  kHead,
  kFinalNorm,
  // of a layer
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kQueryNorm,
  kKeyNorm,
  kAttentionOutput,
  kMlpNorm,
  kGate,
  kUp,
  kDown,
};

// Names one weight. `layer` counts for the kinds of a layer only.
struct WeightId {
  WeightKind kind = WeightKind::kEmbedding;
  int32_t layer = 0;
};

struct WeightShape {
  int64_t rows = 0;  // outputs; 1 for norms and biases
  int64_t cols = 0;  // inputs; the length of norms and biases
};

// The shape a weight must have in a model of this spec.
WeightShape ShapeOf(const ModelSpec& spec, WeightKind kind);

// Every weight that a model of this spec has. A tied head is not listed.
std::vector<WeightId> WeightsOf(const ModelSpec& spec);

// One weight as it lies in its file. Valid as long as its source.
struct StoredWeight {
  std::string name;  // in the file
  std::string encoding;
  WeightShape shape;
  int64_t row_bytes = 0;
  // Reads rows in Hugging Face's order, as stored: `out` takes count * row_bytes. Errors as of
  // WeightFile::Read.
  std::function<absl::Status(int64_t first, int64_t count, uint8_t* out)> read_rows;
  // Turns stored rows into out [rows, shape.cols].
  std::function<void(absl::Span<const uint8_t> bytes, int64_t rows, float* out)> decode;
};

// Immutable. Threads: any number may read.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  const ModelSpec& spec() const { return spec_; }

  // The folder or file this was opened from.
  const std::string& path() const { return path_; }

  // Reads rows of a weight as F32 in Hugging Face's row order (GGUF's permutation of q and k undone). The
  // source must outlive the function. kHead of a tied model reads the embedding. INVALID_ARGUMENT:
  // MODEL_TENSOR_MISSING, MODEL_TENSOR_DTYPE, MODEL_TENSOR_SHAPE. Reading may fail with MODEL_FILE_CHANGED,
  // or with MODEL_WEIGHTS_NOT_FINITE when a row holds NaN or infinity.
  absl::StatusOr<RowSource> Rows(WeightId id) const;

  // Adds the weight's encoding and its bytes as stored to `hash`. Errors as of Rows.
  absl::Status HashStored(WeightId id, Sha256& hash) const;

  // OK when every weight the spec asks for is there in its shape and a known encoding; else
  // MODEL_TENSOR_SHAPE or an error of Rows.
  absl::Status CheckAllWeights() const;

  // The weight files, sorted by path. They live as long as the source.
  virtual std::vector<const WeightFile*> files() const = 0;

 protected:
  ModelSource(std::string path, ModelSpec spec) : path_(std::move(path)), spec_(std::move(spec)) {}

  // Where a weight lies. INVALID_ARGUMENT: MODEL_TENSOR_MISSING, MODEL_TENSOR_DTYPE.
  virtual absl::StatusOr<StoredWeight> Locate(WeightId id) const = 0;

  // Every tensor of the files.
  virtual std::vector<std::string> TensorNames() const = 0;
  // Whether a tensor may be there though nothing reads it.
  virtual bool IsIgnorable(const std::string& name) const = 0;

 private:
  // Locate, with the shape compared with the spec's.
  absl::StatusOr<StoredWeight> Checked(WeightId id) const;

  std::string path_;
  ModelSpec spec_;
};

// Opens a Hugging Face folder (config.json and safetensors) or a .gguf file, parses every header and checks
// that every weight the spec asks for is there with its shape. Reads no weights. NOT_FOUND /
// MODEL_FILE_MISSING; INVALID_ARGUMENT with a reason SAFETENSORS_..., GGUF_..., MODEL_CONFIG, MODEL_SPEC,
// MODEL_UNSUPPORTED or MODEL_TENSOR_....
absl::StatusOr<std::unique_ptr<ModelSource>> OpenModel(const std::string& path);

// The spec of a model of which config.json is enough: a Hugging Face folder without weights will do. A .gguf
// file must be whole. Errors as of OpenModel.
absl::StatusOr<ModelSpec> ReadModelSpec(const std::string& path);

}  // namespace sextant
