// Steers and records inside the forward pass: what one step does at each site of each layer.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/activation/positions.h"
#include "common/model/layer_hooks.h"
#include "kernels/backend.h"
#include "services/shard_worker/steering_pool.h"
#include "sextant/internal/v1/plan.pb.h"

namespace sextant {

// Sites count from 1 in the proto.
inline constexpr int kSiteCount = 7;

// Where the rows of one capture go in a position's slots.
class RecordLayout {
 public:
  RecordLayout(const sextant::internal::v1::CaptureSpec& spec, int32_t layer_count);

  // Index of the row of this site and layer; -1: not recorded.
  int32_t RowAt(Site site, int32_t layer) const { return rows_[(site - 1) * layer_count_ + layer]; }
  // Rows whose scale is taken from this layer's resid_post.
  const std::vector<int32_t>& ScaledRows(int32_t layer) const { return scaled_rows_[layer]; }
  bool before_steering() const { return before_steering_; }
  int32_t row_count() const { return row_count_; }
  int32_t slot_count() const { return slot_count_; }

 private:
  int32_t layer_count_;
  int32_t row_count_;
  int32_t slot_count_;
  bool before_steering_;
  std::vector<int32_t> rows_;                      // [sites, layers]
  std::vector<std::vector<int32_t>> scaled_rows_;  // [layers]; empty without scales
};

// An intervention with its directions on the device, which it gives back to the pool at its end.
class SteeringVector {
 public:
  // Queues the directions' way to the device on `stream`. REQUIRES: `pool` has room and outlives this.
  // Errors: of the positions.
  static absl::StatusOr<std::unique_ptr<SteeringVector>> Load(
      SteeringPool& pool, Stream& stream, const sextant::internal::v1::ResolvedIntervention& intervention,
      int32_t prompt_count, int32_t layer_count);
  ~SteeringVector() { pool_.GiveBack(slots_); }

  bool Selects(int32_t position, int32_t token_id) const { return clause_.Selects(position, token_id); }
  Site site() const { return site_; }
  // Whether it acts at this layer; then `entry` is all but its rows.
  bool At(int32_t layer, SteerEntry& entry) const;

 private:
  SteeringVector(SteeringPool& pool, PositionClause clause) : pool_(pool), clause_(std::move(clause)) {}

  SteeringPool& pool_;
  PositionClause clause_;
  Site site_ = sextant::v1::SITE_UNSPECIFIED;
  SteerEntry settings_;
  std::vector<int32_t> slot_of_layer_;  // [layers], -1: not there
  std::vector<int32_t> slots_;          // of its layers, in order
};

// A position that this rank records in this step.
struct RecordedPosition {
  int32_t row = 0;  // of the batch
  std::vector<int32_t> slots;
  const RecordLayout* layout = nullptr;
  // What becomes of it after the step.
  std::string capture;
  int32_t position = 0;
  bool lens = false;
  int32_t target_id = -1;
};

struct SteeredRows {
  const SteeringVector* vector = nullptr;
  std::vector<int32_t> rows;  // of the batch
};

// Steers, then records, so that what was recorded is what the next operation saw; captures that ask for the
// value before steering are recorded first. Filled anew for each step. One thread.
class StepHooks final : public LayerHooks {
 public:
  // Recorded rows are `row_dtype`; slot s of the ring begins at ring + s * slot_bytes.
  StepHooks(Backend& backend, char* ring, int64_t slot_bytes, DType row_dtype, float norm_eps)
      : backend_(backend), ring_(ring), slot_bytes_(slot_bytes), row_dtype_(row_dtype), norm_eps_(norm_eps) {}

  // The next step. One that is `replayed` steers and records at all places that the step's requests name, if
  // need be no rows: which rows are touched differs from step to step and from rank to rank, but the
  // operations must not, for a device that replays them.
  void Begin(bool replayed);
  // Of a request that is in the step, whether or not one of its positions is recorded in it.
  void AddLayout(const RecordLayout& layout);
  // REQUIRES: AddLayout of its layout.
  void AddRecorded(RecordedPosition position) { recorded_.push_back(std::move(position)); }
  // In the order in which interventions apply; of every request in the step.
  void AddSteered(SteeredRows rows) { steered_.push_back(std::move(rows)); }
  std::vector<RecordedPosition>& recorded() { return recorded_; }

  void OnSite(Stream& stream, Site site, int32_t layer, Tensor activation) override;
  bool ChangesAt(Site site, int32_t layer) const override;

 private:
  void Steer(Stream& stream, Site site, int32_t layer, Tensor activation);
  void Record(Stream& stream, Site site, int32_t layer, Tensor activation, bool before_steering);
  // Room for every row of `activation`, `per_row` times, in a step that is replayed.
  void KeepRoom(const Tensor& activation, size_t per_row, std::vector<RecordEntry>& entries) const;

  Backend& backend_;
  char* const ring_;
  const int64_t slot_bytes_;
  const DType row_dtype_;
  const float norm_eps_;
  bool replayed_ = false;
  std::vector<const RecordLayout*> layouts_;
  std::vector<RecordedPosition> recorded_;
  std::vector<SteeredRows> steered_;
  bool any_before_ = false;
  bool any_after_ = false;
};

}  // namespace sextant
