// The union of two position clauses, as one clause.
#include "services/gateway/position_union.h"

#include <algorithm>

#include "common/activation/positions.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"

namespace sextant {
namespace {

bool IsEmpty(const v1::PositionSet& set) {
  return !set.all() && set.tokens().empty() && set.positions().empty() && set.windows().empty();
}

bool SelectsAllGenerated(const v1::Positions* clause) {
  return clause == nullptr || (clause->generation().all() && IsEmpty(clause->exclude_generation()));
}

bool SelectsNoneGenerated(const v1::Positions* clause) {
  return clause != nullptr && IsEmpty(clause->generation());
}

absl::StatusOr<PositionClause> Compile(const v1::Positions* clause, int32_t prompt_count) {
  if (clause == nullptr) return PositionClause::All();
  return PositionClause::Compile(*clause, prompt_count);
}

void TakeGeneration(const v1::Positions& from, v1::Positions* to) {
  if (from.has_generation()) *to->mutable_generation() = from.generation();
  if (from.has_exclude_generation()) *to->mutable_exclude_generation() = from.exclude_generation();
}

absl::Status UniteGeneration(const v1::Positions* a, const v1::Positions* b, v1::Positions* result) {
  if (SelectsAllGenerated(a) || SelectsAllGenerated(b)) {
    result->mutable_generation()->set_all(true);
  } else if (SelectsNoneGenerated(a)) {
    TakeGeneration(*b, result);
  } else if (SelectsNoneGenerated(b)) {
    TakeGeneration(*a, result);
  } else if (a->exclude_generation().SerializeAsString() == b->exclude_generation().SerializeAsString()) {
    TakeGeneration(*a, result);
    result->mutable_generation()->MergeFrom(b->generation());
  } else {
    return RequestInvalid("POSITIONS_EXCLUDE_DIFFERENTLY",
                          "lens and capture leave out different generated positions; give both the same "
                          "exclude_generation, or send two requests");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Positions> UnionPositions(const v1::Positions* a, const v1::Positions* b,
                                             absl::Span<const int32_t> prompt_ids) {
  const int32_t prompt_count = static_cast<int32_t>(prompt_ids.size());
  SEXTANT_ASSIGN_OR_RETURN(const PositionClause first, Compile(a, prompt_count));
  SEXTANT_ASSIGN_OR_RETURN(const PositionClause second, Compile(b, prompt_count));
  v1::Positions result;
  int32_t begin = -1;
  for (int32_t position = 0; position <= prompt_count; ++position) {
    const bool selected =
        position < prompt_count && (first.Selects(position, prompt_ids[static_cast<size_t>(position)]) ||
                                    second.Selects(position, prompt_ids[static_cast<size_t>(position)]));
    if (selected && begin < 0) begin = position;
    if (!selected && begin >= 0) {
      v1::Window* window = result.mutable_prompt()->add_windows();
      window->set_begin(begin);
      window->set_end(position);
      begin = -1;
    }
  }
  SEXTANT_RETURN_IF_ERROR(UniteGeneration(a, b, &result));
  return result;
}

absl::StatusOr<int32_t> MostPositions(const v1::Positions* clause, absl::Span<const int32_t> prompt_ids,
                                      int32_t max_new_tokens) {
  const int32_t prompt_count = static_cast<int32_t>(prompt_ids.size());
  SEXTANT_ASSIGN_OR_RETURN(const PositionClause compiled, Compile(clause, prompt_count));
  int32_t count = 0;
  for (int32_t position = 0; position < prompt_count; ++position) {
    count += compiled.Selects(position, prompt_ids[static_cast<size_t>(position)]);
  }
  if (!SelectsNoneGenerated(clause)) count += std::max(0, max_new_tokens - 1);
  return count;
}

}  // namespace sextant
