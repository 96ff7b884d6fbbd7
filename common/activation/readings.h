// Columnar readings: checking their sizes and joining them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "sextant/internal/v1/plan.pb.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

// INVALID_ARGUMENT READINGS_SHAPE unless every array of `readings` has the size its positions, rows, top_k
// and targets call for, and rows, top_k and targets are those of `spec`'s lens.
absl::Status ValidateReadings(const sextant::v1::Readings& readings,
                              const sextant::internal::v1::CaptureSpec& spec);

// The readings of position number `index` (not the position itself) of `readings`, alone.
// REQUIRES: sizes are consistent (ValidateReadings).
sextant::v1::Readings ReadingsAt(const sextant::v1::Readings& readings, int index);

// Whether two Readings have equal rows, top_k and target count, so that they can be joined.
bool SameShape(const sextant::v1::Readings& a, const sextant::v1::Readings& b);

// Appends `from`'s positions to `to`; an empty `to` becomes a copy. REQUIRES: SameShape, or `to` has no
// positions.
void AppendReadings(const sextant::v1::Readings& from, sextant::v1::Readings& to);

// The number of distinct sites among the rows, in order of first appearance: the S of prediction_depths.
int SiteCount(const sextant::v1::Readings& readings);

}  // namespace sextant
