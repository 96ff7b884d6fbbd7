// What a client sees of the lens's readings: the rows and positions it asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/activation/positions.h"
#include "services/gateway/capture_plan.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

// Leaves out what the gateway added for its own use. Immutable. Threads: any.
class ReadingsView {
 public:
  // REQUIRES: `plan` is the plan of `request` for this prompt.
  static absl::StatusOr<ReadingsView> Create(const v1::GenerateRequest& request, const CapturePlan& plan,
                                             absl::Span<const int32_t> prompt_ids);

  // The client's part of `readings`; empty (no positions) if it has none there. REQUIRES: sizes are
  // consistent.
  v1::Readings Of(v1::Readings readings) const;

 private:
  ReadingsView() = default;
  void DropLastRow(v1::Readings* readings) const;

  int row_count_ = 0;  // rows that the client asked for; the lens has at most one more
  bool has_extra_row_ = false;
  int32_t final_layer_ = 0;
  // Set when the lens decodes prompt positions that the client did not ask for.
  std::optional<PositionClause> positions_;
  std::vector<int32_t> prompt_ids_;
};

// Gathers the log-probabilities of the prompt's tokens from readings. Threads: one at a time.
class PromptLogprobs {
 public:
  // `row`: the final layer's resid_post among the rows of the readings.
  PromptLogprobs(int32_t prompt_count, int row);

  // Takes what `readings` say of prompt positions. REQUIRES: sizes are consistent and `row` is one of theirs.
  void Add(const v1::Readings& readings);

  // Of each prompt token given those before it; NaN for the first, and where no reading has come.
  const std::vector<float>& values() const { return values_; }

 private:
  const int row_;
  std::vector<float> values_;  // [prompt tokens]
};

}  // namespace sextant
