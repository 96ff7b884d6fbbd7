// How a lease's positions become a batch of the lens, and the lens's output their readings.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "sextant/internal/v1/plan.pb.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

// One capture's layout, checked and compiled. A position becomes a group of `group_rows()` rows of the batch:
// the rows to report, in their order, then the final layer's resid_post unless it is one of them. Immutable;
// threads: any.
class LensLayout {
 public:
  // LEASE_INVALID when the spec does not fit together; LEASE_OF_ANOTHER_MODEL when it does not fit the head.
  static absl::StatusOr<LensLayout> Make(const internal::v1::CaptureSpec& spec, int64_t hidden_size,
                                         int64_t vocab_size);

  int group_rows() const { return static_cast<int>(slots_.size()); }
  int64_t position_bytes() const { return position_bytes_; }
  DType row_dtype() const { return row_dtype_; }
  int64_t row_bytes() const { return row_bytes_; }
  int top_k() const { return spec_.lens().top_k(); }
  int target_count() const { return target_count_; }
  bool tracked() const { return spec_.lens().tracked(); }
  // An upper bound of a position's serialized readings.
  int64_t reading_bytes() const { return reading_bytes_; }

  // LEASE_OF_ANOTHER_MODEL when a position cannot be decoded for its target. `target_id` counts only where
  // the capture fixes no targets; -1: none. REQUIRES: payload has position_bytes.
  absl::Status CheckPosition(absl::string_view payload, int32_t target_id) const;

  // Adds a position to the batch (all but `rows`) and copies its rows to `rows` [group_rows, hidden_size]. A
  // row whose scale is not a positive number becomes NaN, and so do its readings. REQUIRES: CheckPosition is
  // OK.
  void AddPosition(absl::string_view payload, int32_t target_id, LensBatch& batch, char* rows) const;

  // The readings of groups [first, first + positions.size()) of `batch`, whose positions those are.
  v1::Readings BuildReadings(const LensBatch& batch, const LensOutput& output, int first,
                             absl::Span<const int32_t> positions) const;

 private:
  struct Slot {
    int64_t offset = 0;        // of the row in the payload
    int64_t scale_offset = 0;  // of the rms to divide by in the payload; -1: the row's own
  };
  // The rows of one site among those to report, by layer.
  struct SiteRows {
    std::vector<int> slots;
    std::vector<int32_t> layers;
  };

  LensLayout() = default;
  // What to divide the row by; 0: its own rms; NaN or infinite: nothing.
  static float ScaleOf(const Slot& slot, absl::string_view payload);
  absl::Status CheckAgainst(int64_t hidden_size, int64_t vocab_size) const;
  void Compile();
  int report_count() const { return spec_.lens().row_indices_size(); }
  // The first of the layers asked for from which the top-1 stays the final row's; -1 if none.
  int32_t PredictionDepth(const SiteRows& site, const int32_t* top_ids, int group) const;
  void AppendTracked(const LensOutput& output, int group, v1::Readings& readings) const;

  internal::v1::CaptureSpec spec_;
  int64_t hidden_size_ = 0;
  int64_t vocab_size_ = 0;
  DType row_dtype_ = DType::kBF16;
  int64_t row_bytes_ = 0;
  int64_t position_bytes_ = 0;
  int64_t reading_bytes_ = 0;
  int target_count_ = 1;
  std::vector<Slot> slots_;  // [group_rows]
  int final_slot_ = 0;
  std::vector<SiteRows> sites_;  // in order of first appearance
};

}  // namespace sextant
