// Columnar readings: all arrays are position-major, so cutting and joining is cutting and joining bytes.
#include "common/activation/readings.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"

namespace sextant {
namespace {

using sextant::v1::Readings;

absl::Status WrongShape(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "READINGS_SHAPE", what);
}

// One fixed-width column: its bytes and how many of them each position has.
struct Column {
  const std::string& (Readings::*get)() const;
  std::string* (Readings::*mutable_get)();
  int64_t position_bytes;
  const char* name;
};

std::vector<Column> Columns(const Readings& readings) {
  const int64_t rows = readings.layers_size();
  const int64_t k = readings.top_k();
  const int64_t targets = readings.target_count();
  return {
      {&Readings::top_ids, &Readings::mutable_top_ids, 4 * rows * k, "top_ids"},
      {&Readings::top_logprobs, &Readings::mutable_top_logprobs, 4 * rows * k, "top_logprobs"},
      {&Readings::entropy_nats, &Readings::mutable_entropy_nats, 4 * rows, "entropy_nats"},
      {&Readings::kl_final_nats, &Readings::mutable_kl_final_nats, 4 * rows, "kl_final_nats"},
      {&Readings::target_ids, &Readings::mutable_target_ids, 4 * targets, "target_ids"},
      {&Readings::target_logprobs, &Readings::mutable_target_logprobs, 4 * rows * targets, "target_logprobs"},
      {&Readings::target_ranks, &Readings::mutable_target_ranks, 4 * rows * targets, "target_ranks"},
      {&Readings::prediction_depths, &Readings::mutable_prediction_depths, 4 * int64_t{SiteCount(readings)},
       "prediction_depths"},
  };
}

}  // namespace

int SiteCount(const Readings& readings) {
  return static_cast<int>(std::set<int>(readings.sites().begin(), readings.sites().end()).size());
}

absl::Status ValidateReadings(const Readings& readings, const sextant::internal::v1::CaptureSpec& spec) {
  const auto& lens = spec.lens();
  const int rows = lens.row_indices_size();
  if (readings.sites_size() != rows || readings.layers_size() != rows) {
    return WrongShape(
        absl::StrCat("readings of ", readings.layers_size(), " rows where ", rows, " were asked for"));
  }
  for (int i = 0; i < rows; ++i) {
    const auto& row = spec.rows(lens.row_indices(i));
    if (readings.sites(i) != row.site() || readings.layers(i) != row.layer()) {
      return WrongShape(absl::StrCat("row ", i, " of the readings is not the row asked for"));
    }
  }
  if (readings.top_k() != lens.top_k() || readings.target_count() != std::max(1, lens.target_ids_size())) {
    return WrongShape("top_k or target count is not what was asked for");
  }
  const int64_t positions = readings.positions_size();
  for (const Column& column : Columns(readings)) {
    const int64_t have = static_cast<int64_t>((readings.*column.get)().size());
    if (have != positions * column.position_bytes) {
      return WrongShape(
          absl::StrCat(column.name, " holds ", have, " bytes, not ", positions * column.position_bytes));
    }
  }
  if (!lens.tracked()) {
    if (readings.tracked_counts_size() != 0 || !readings.tracked_ids().empty() ||
        !readings.tracked_logprobs().empty()) {
      return WrongShape("tracked ids that were not asked for");
    }
    return absl::OkStatus();
  }
  const int64_t most = int64_t{rows} * readings.top_k();
  int64_t tracked = 0;
  if (readings.tracked_counts_size() != positions)
    return WrongShape("tracked_counts does not cover the positions");
  for (const int32_t count : readings.tracked_counts()) {
    if (count < 0 || count > most) return WrongShape("a tracked count is out of range");
    tracked += count;
  }
  if (static_cast<int64_t>(readings.tracked_ids().size()) != 4 * tracked ||
      static_cast<int64_t>(readings.tracked_logprobs().size()) != 4 * tracked * rows) {
    return WrongShape("tracked arrays do not match tracked_counts");
  }
  return absl::OkStatus();
}

Readings ReadingsAt(const Readings& readings, int index) {
  SEXTANT_CHECK(index >= 0 && index < readings.positions_size());
  Readings one;
  one.add_positions(readings.positions(index));
  *one.mutable_sites() = readings.sites();
  *one.mutable_layers() = readings.layers();
  one.set_top_k(readings.top_k());
  one.set_target_count(readings.target_count());
  for (const Column& column : Columns(readings)) {
    *(one.*column.mutable_get)() =
        (readings.*column.get)().substr(index * column.position_bytes, column.position_bytes);
  }
  if (readings.tracked_counts_size() > 0) {
    const auto& counts = readings.tracked_counts();
    const int64_t before = std::accumulate(counts.begin(), counts.begin() + index, int64_t{0});
    const int64_t rows = readings.layers_size();
    one.add_tracked_counts(counts[index]);
    one.set_tracked_ids(readings.tracked_ids().substr(4 * before, 4 * int64_t{counts[index]}));
    one.set_tracked_logprobs(readings.tracked_logprobs().substr(4 * before * rows, 4 * counts[index] * rows));
  }
  return one;
}

bool SameShape(const Readings& a, const Readings& b) {
  return a.top_k() == b.top_k() && a.target_count() == b.target_count() &&
         std::equal(a.sites().begin(), a.sites().end(), b.sites().begin(), b.sites().end()) &&
         std::equal(a.layers().begin(), a.layers().end(), b.layers().begin(), b.layers().end());
}

void AppendReadings(const Readings& from, Readings& to) {
  if (to.positions_size() == 0) {
    to = from;
    return;
  }
  SEXTANT_CHECK(SameShape(from, to));
  to.mutable_positions()->MergeFrom(from.positions());
  for (const Column& column : Columns(from)) (to.*column.mutable_get)()->append((from.*column.get)());
  to.mutable_tracked_counts()->MergeFrom(from.tracked_counts());
  to.mutable_tracked_ids()->append(from.tracked_ids());
  to.mutable_tracked_logprobs()->append(from.tracked_logprobs());
}

}  // namespace sextant
