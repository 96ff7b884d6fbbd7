// The union of two position clauses, as one clause.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

// A clause that selects what `a` or `b` selects after this prompt; nullptr is the unset clause, every
// position. The prompt's part comes out as explicit windows. INVALID_ARGUMENT: the reasons of
// PositionClause::Compile, and POSITIONS_EXCLUDE_DIFFERENTLY where two different exclude_generation sets
// would have to be joined.
absl::StatusOr<v1::Positions> UnionPositions(const v1::Positions* a, const v1::Positions* b,
                                             absl::Span<const int32_t> prompt_ids);

// How many positions `clause` can select at most, of this prompt and `max_new_tokens` more. nullptr: every
// position.
absl::StatusOr<int32_t> MostPositions(const v1::Positions* clause, absl::Span<const int32_t> prompt_ids,
                                      int32_t max_new_tokens);

}  // namespace sextant
