// The readings of one capture in the order in which they came.
#include "services/capture/readings_log.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/types/span.h"
#include "common/activation/readings.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using sextant::internal::v1::CaptureSpec;
using sextant::v1::Readings;

template <typename T>
std::string Repeated(T value, int64_t count) {
  std::string bytes;
  bytes.reserve(count * sizeof value);
  for (int64_t i = 0; i < count; ++i) bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

}  // namespace

absl::Status ReadingsLog::Append(const Readings& readings, bool failed) {
  Entry entry;
  entry.failed = failed;
  if (spooled_ != nullptr) {
    sextant::internal::v1::SpoolRecord record;
    record.mutable_reading()->set_failed(failed);
    *record.mutable_reading()->mutable_readings() = readings;
    SEXTANT_ASSIGN_OR_RETURN(entry.offset, spooled_->Append(record));
  } else {
    entry.bytes = readings.SerializeAsString();
  }
  entries_.push_back(std::move(entry));
  failed_count_ += failed;
  return absl::OkStatus();
}

void ReadingsLog::Recover(int64_t offset, bool failed) {
  Entry& entry = entries_.emplace_back();
  entry.offset = offset;
  entry.failed = failed;
  failed_count_ += failed;
}

absl::StatusOr<Readings> ReadingsLog::At(const Entry& entry) const {
  if (entry.offset >= 0) {
    SEXTANT_ASSIGN_OR_RETURN(auto reading, spooled_->ReadReading(entry.offset));
    return std::move(*reading.mutable_readings());
  }
  Readings readings;
  SEXTANT_CHECK(readings.ParseFromString(entry.bytes));
  return readings;
}

absl::StatusOr<Readings> ReadingsLog::Batch(int64_t index, int64_t most_bytes) const {
  SEXTANT_CHECK(index >= 0 && index < size());
  Readings batch;
  int64_t bytes = 0;
  for (; index < size(); ++index) {
    if (entries_[index].forgotten) continue;
    SEXTANT_ASSIGN_OR_RETURN(const Readings one, At(entries_[index]));
    bytes += one.ByteSizeLong();
    if (batch.positions_size() > 0 && bytes > most_bytes) break;
    AppendReadings(one, batch);
  }
  return batch;
}

void ReadingsLog::ForgetBefore(int64_t index) {
  for (int64_t i = 0; i < std::min(index, size()); ++i) entries_[i].forgotten = true;
}

Readings FailedReadings(const CaptureSpec& spec, int32_t position, int32_t target_id) {
  const auto& lens = spec.lens();
  Readings readings;
  readings.add_positions(position);
  for (const int32_t index : lens.row_indices()) {
    readings.add_sites(spec.rows(index).site());
    readings.add_layers(spec.rows(index).layer());
  }
  const int64_t rows = lens.row_indices_size();
  const int64_t targets = std::max(1, lens.target_ids_size());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  readings.set_top_k(lens.top_k());
  readings.set_target_count(targets);
  readings.set_top_ids(Repeated(int32_t{-1}, rows * lens.top_k()));
  readings.set_top_logprobs(Repeated(nan, rows * lens.top_k()));
  readings.set_entropy_nats(Repeated(nan, rows));
  readings.set_kl_final_nats(Repeated(nan, rows));
  for (const int32_t id : lens.target_ids()) readings.mutable_target_ids()->append(Repeated(id, 1));
  if (lens.target_ids().empty()) readings.set_target_ids(Repeated(target_id, 1));
  readings.set_target_logprobs(Repeated(nan, rows * targets));
  readings.set_target_ranks(Repeated(int32_t{-1}, rows * targets));
  readings.set_prediction_depths(Repeated(int32_t{-1}, SiteCount(readings)));
  if (lens.tracked()) readings.add_tracked_counts(0);
  return readings;
}

}  // namespace sextant
