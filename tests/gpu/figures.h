// What a run on a device found: ratios, each beside its denominator and proof of what was computed, as text
// and as JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sextant {

// What shows that the thing that was measured computes the right thing.
struct Proof {
  // Of the logits, or of what the lens read, in bits; of the first round and of a later one.
  std::vector<uint64_t> hashes;
  // Of the denominator, where it computes the same; empty elsewhere.
  std::vector<uint64_t> denominator_hashes;
  // Of the rows that were captured, or of what the lens read in them, in the last step: of each timed run,
  // then of one whose memory was overwritten before every step. Empty where rows are not used.
  std::vector<uint64_t> row_hashes = {};
  // Largest difference from the CPU's results for a part of it, relative to their size or 1, and what
  // rounding explains.
  double error = 0;
  double tolerance = 0;

  // All hashes of logits are one, so are those of rows, and the difference is explained.
  bool Holds() const;
};

// A ratio of two speeds measured in turn, round after round.
struct Figure {
  std::string name;  // "G1"
  std::string what;
  std::string unit;  // of the two speeds
  double target = 0;
  double bound = 0;                  // what bytes alone allow at most, the way it is done; 0: not known
  std::vector<double> speeds;        // [rounds]
  std::vector<double> denominators;  // [rounds]
  Proof proof;
};

// Of each round: the smallest, the median and the largest ratio.
struct Spread {
  double low = 0, median = 0, high = 0;
};
Spread RatioOf(const Figure& figure);
double Median(std::vector<double> values);

// Two lines a figure: ratio (spread) and target; then the two speeds and the proof.
std::string AsText(const std::string& device, const std::vector<Figure>& figures);
std::string AsJson(const std::string& device, const std::vector<Figure>& figures);

// Seconds that `work` takes. `work` waits for what it queues.
absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& work);

// FNV-1a of bytes, going on from `hash`.
inline constexpr uint64_t kEmptyHash = 0xcbf29ce484222325u;
uint64_t HashOf(const void* bytes, int64_t count, uint64_t hash = kEmptyHash);

// max |got - want| / max(1, |want|).
double LargestDifference(const float* got, const float* want, int64_t count);

}  // namespace sextant
