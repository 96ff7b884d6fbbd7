// The last piece of a model, all that a lens decoder needs: final norm and head over the whole vocabulary.
#include "common/model/lens_head.h"

#include <utility>
#include <vector>

#include "common/model/weights.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::StatusOr<LensHead> LoadLensHead(const ModelSource& source, Backend& backend, DType dtype) {
  const ModelSpec& spec = source.spec();
  LensHead lens;
  lens.hidden_size = spec.hidden_size;
  lens.vocab_size = spec.vocab_size;
  lens.norm_eps = spec.norm_eps;
  SEXTANT_ASSIGN_OR_RETURN(const RowSource norm, source.Rows({WeightKind::kFinalNorm, 0}));
  std::vector<float> values(static_cast<size_t>(spec.hidden_size));
  SEXTANT_RETURN_IF_ERROR(norm(0, 1, values.data()));
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(DeviceVector vector, ToDevice(backend, *stream, values));
  lens.norm_weight = std::move(vector.buffer);
  SEXTANT_ASSIGN_OR_RETURN(const RowSource head, source.Rows({WeightKind::kHead, 0}));
  SEXTANT_ASSIGN_OR_RETURN(lens.head, backend.PackMatrix(dtype, spec.vocab_size, spec.hidden_size, head));
  return lens;
}

}  // namespace sextant
