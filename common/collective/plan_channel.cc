// Lets the ranks of a group compare values.
#include "common/collective/plan_channel.h"

#include <algorithm>
#include <cstring>

#include "absl/time/clock.h"
#include "common/collective/errors.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Ranks that compare in every step come within this time of each other, so that nobody sleeps.
constexpr absl::Duration kSpin = absl::Microseconds(300);
constexpr absl::Duration kPause = absl::Microseconds(20);

}  // namespace

absl::StatusOr<int64_t> PlanChannel::AwaitReported(int rank, ReportWord word, int64_t least,
                                                   const SteadyDeadline& deadline) const {
  int64_t value;
  while ((value = Reported(rank, word)) < least) {
    if (aborted()) return GroupLostError();
    if (deadline.over()) return StepDeadlineError();
    if (deadline.waited() > kSpin) absl::SleepFor(kPause);
  }
  return value;
}

absl::StatusOr<ComparedValues> PlanChannel::CollectCompared(int32_t own, absl::Duration timeout) const {
  ComparedValues all = {own, own};
  const SteadyDeadline deadline(timeout);
  for (int peer = 1; peer < size(); ++peer) {
    SEXTANT_ASSIGN_OR_RETURN(const int64_t word,
                             AwaitReported(peer, ReportWord::kCompared, compared_ * kMostCompared, deadline));
    const auto value = static_cast<int32_t>(word % kMostCompared);
    all = {std::min(all.least, value), std::max(all.most, value)};
  }
  return all;
}

absl::StatusOr<ComparedValues> PlanChannel::Compare(int32_t value, absl::Duration timeout) {
  SEXTANT_CHECK(value >= 0 && value < kMostCompared);
  ++compared_;
  ComparedValues all;
  if (rank() == 0) {
    SEXTANT_ASSIGN_OR_RETURN(all, CollectCompared(value, timeout));
    SEXTANT_RETURN_IF_ERROR(
        Broadcast(absl::string_view(reinterpret_cast<const char*>(&all), sizeof all), timeout));
    return all;
  }
  Report(ReportWord::kCompared, compared_ * kMostCompared + value);
  SEXTANT_ASSIGN_OR_RETURN(const std::string bytes, Receive(timeout));
  if (bytes.size() != sizeof all) {
    // The ranks are at different places.
    Abort();
    return GroupLostError();
  }
  std::memcpy(&all, bytes.data(), sizeof all);
  return all;
}

}  // namespace sextant
