// The position clause: which positions of a sequence an intervention, a capture or a lens is about.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

// A compiled sextant.v1.Positions. Immutable; threads: any.
class PositionClause {
 public:
  // Selects every position.
  static PositionClause All();

  // Compiles `clause` for a prompt of `prompt_count` tokens. INVALID_ARGUMENT with reason POSITIONS_EMPTY (no
  // phase selects anything), POSITION_NEGATIVE (in a generation set), WINDOW_INVALID (end before begin) or
  // POSITIONS_TOO_MANY (more than 65,536 entries in one set).
  static absl::StatusOr<PositionClause> Compile(const sextant::v1::Positions& clause, int32_t prompt_count);

  // Whether the clause selects `position`, whose input token is `token_id`.
  bool Selects(int32_t position, int32_t token_id) const;

  // Whether some input position of this prompt followed by at most `max_new_tokens` could be selected. The
  // last sampled token is never an input, so generation positions run up to max_new_tokens - 2.
  bool CanSelect(absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens) const;

 private:
  struct Range {
    int32_t begin;
    int32_t end;  // exclusive
  };
  struct Set {
    bool all = false;
    absl::flat_hash_set<int32_t> tokens;
    absl::flat_hash_set<int32_t> indices;
    std::vector<Range> ranges;  // ascending, with a gap between any two; a window may be empty
    bool empty() const { return !all && tokens.empty() && indices.empty() && ranges.empty(); }
    bool HoldsIndex(int32_t index) const;
    bool Holds(int32_t index, int32_t token_id) const;
  };
  static absl::StatusOr<Set> CompileSet(const sextant::v1::PositionSet& set, bool prompt,
                                        int32_t prompt_count);
  // Joins ranges that overlap or touch, so that at most one can hold an index.
  static std::vector<Range> Joined(std::vector<Range> ranges);

  int32_t prompt_count_ = 0;
  Set prompt_, generation_, exclude_prompt_, exclude_generation_;
};

}  // namespace sextant
