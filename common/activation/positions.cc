// The position clause: include is a union, exclude always subtracts.
#include "common/activation/positions.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int kMaxEntries = 65536;
constexpr int32_t kNoEnd = std::numeric_limits<int32_t>::max();

absl::Status Invalid(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

}  // namespace

PositionClause PositionClause::All() {
  PositionClause clause;
  clause.prompt_.all = true;
  clause.generation_.all = true;
  return clause;
}

absl::StatusOr<PositionClause::Set> PositionClause::CompileSet(const sextant::v1::PositionSet& set,
                                                               bool prompt, int32_t prompt_count) {
  if (set.tokens_size() > kMaxEntries || set.positions_size() > kMaxEntries ||
      set.windows_size() > kMaxEntries) {
    return Invalid("POSITIONS_TOO_MANY", absl::StrCat("a position set holds more than ", kMaxEntries,
                                                      " entries; use windows or `all`"));
  }
  Set compiled;
  compiled.all = set.all();
  compiled.tokens.insert(set.tokens().begin(), set.tokens().end());
  for (const int32_t index : set.positions()) {
    if (index < 0 && !prompt) {
      return Invalid("POSITION_NEGATIVE", absl::StrCat("generation position ", index,
                                                       ": only prompt positions may count from the end"));
    }
    // A prompt index before the prompt's begin stays negative and matches nothing.
    compiled.indices.insert(index < 0 ? std::max<int64_t>(-1, int64_t{index} + prompt_count) : index);
  }
  for (const sextant::v1::Window& window : set.windows()) {
    if (!prompt && (window.begin() < 0 || (window.has_end() && window.end() < 0))) {
      return Invalid("POSITION_NEGATIVE",
                     "a generation window has a negative bound; only prompt windows may count from the end");
    }
    const auto resolve = [&](int32_t index) {
      return static_cast<int32_t>(index < 0 ? std::max<int64_t>(0, int64_t{index} + prompt_count) : index);
    };
    const Range range = {resolve(window.begin()), window.has_end() ? resolve(window.end()) : kNoEnd};
    if (range.end < range.begin) {
      return Invalid("WINDOW_INVALID",
                     absl::StrCat("window [", window.begin(), ", ", window.end(),
                                  ") ends before it begins in a prompt of ", prompt_count, " tokens"));
    }
    compiled.ranges.push_back(range);
  }
  compiled.ranges = Joined(std::move(compiled.ranges));
  return compiled;
}

std::vector<PositionClause::Range> PositionClause::Joined(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> joined;
  for (const Range& range : ranges) {
    if (joined.empty() || joined.back().end < range.begin) {
      joined.push_back(range);
    } else {
      joined.back().end = std::max(joined.back().end, range.end);
    }
  }
  return joined;
}

absl::StatusOr<PositionClause> PositionClause::Compile(const sextant::v1::Positions& clause,
                                                       int32_t prompt_count) {
  PositionClause compiled;
  compiled.prompt_count_ = prompt_count;
  SEXTANT_ASSIGN_OR_RETURN(compiled.prompt_, CompileSet(clause.prompt(), true, prompt_count));
  SEXTANT_ASSIGN_OR_RETURN(compiled.generation_, CompileSet(clause.generation(), false, prompt_count));
  SEXTANT_ASSIGN_OR_RETURN(compiled.exclude_prompt_, CompileSet(clause.exclude_prompt(), true, prompt_count));
  SEXTANT_ASSIGN_OR_RETURN(compiled.exclude_generation_,
                           CompileSet(clause.exclude_generation(), false, prompt_count));
  if (compiled.prompt_.empty() && compiled.generation_.empty()) {
    return Invalid("POSITIONS_EMPTY",
                   "the position clause selects nothing; leave it unset for all positions or fill `prompt` "
                   "or `generation`");
  }
  return compiled;
}

bool PositionClause::Set::HoldsIndex(int32_t index) const {
  if (all || indices.contains(index)) return true;
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), index,
                       [](int32_t wanted, const Range& range) { return wanted < range.begin; });
  return after != ranges.begin() && index < std::prev(after)->end;
}

bool PositionClause::Set::Holds(int32_t index, int32_t token_id) const {
  return HoldsIndex(index) || tokens.contains(token_id);
}

bool PositionClause::Selects(int32_t position, int32_t token_id) const {
  if (position < prompt_count_ || prompt_count_ == 0) {
    return prompt_.Holds(position, token_id) && !exclude_prompt_.Holds(position, token_id);
  }
  const int32_t index = position - prompt_count_;
  return generation_.Holds(index, token_id) && !exclude_generation_.Holds(index, token_id);
}

bool PositionClause::CanSelect(absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens) const {
  for (size_t i = 0; i < prompt_ids.size(); ++i) {
    if (Selects(static_cast<int32_t>(i), prompt_ids[i])) return true;
  }
  for (int32_t index = 0; index + 1 < max_new_tokens; ++index) {
    const bool may_hold = generation_.HoldsIndex(index) || !generation_.tokens.empty();
    if (may_hold && !exclude_generation_.HoldsIndex(index)) return true;
  }
  return false;
}

}  // namespace sextant
