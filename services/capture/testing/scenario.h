// What a scripted run of the capture protocol consists of, and the holes that can be opened in its actors.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "services/capture/options.h"
#include "services/capture/protocol_policy.h"

namespace sextant::testing {

// Rules of the actors around the capture service that a test can switch off; the service's own are in
// ProtocolPolicy.
struct ActorRules {
  // A plan carries the target of every token sampled before it, whether or not its sequence is scheduled.
  bool stamp_unscheduled = true;
  // A plan is made for targets alone when nothing can be scheduled.
  bool plans_of_stamps = true;
  // The leader counts the owner's ring before it plans a position.
  bool count_ring = true;
  // A capture whose position is bigger than a ring is refused at admission.
  bool refuse_bigger_than_ring = true;
  // Credit travels as a running total. Otherwise as increments.
  bool credit_totals = true;
  // Every attempt opens a capture of its own.
  bool new_capture_per_attempt = true;
  // The seal is said again after each hello until it is answered.
  bool resend_seal = true;
  // A sequence attaches when it holds its KV blocks.
  bool kv_before_attach = true;
  // A cancelled Open is followed by Close once it is answered.
  bool close_cancelled_open = true;
};

// Sizes are in units of one weight-1 position.
struct Scenario {
  static constexpr int kMaxSequences = 4;
  int sequences = 2;
  std::array<int, kMaxSequences> positions = {3, 3, 3, 3};
  std::array<int, kMaxSequences> prompt = {2, 1, 1, 1};
  std::array<int, kMaxSequences> weight = {1, 1, 1, 1};
  std::array<bool, kMaxSequences> kept = {};
  // No decoder has its digest.
  std::array<bool, kMaxSequences> undecodable = {};
  // Its client takes no readings.
  std::array<bool, kMaxSequences> never_reads = {};
  int decoders = 2;
  int budget = 6;
  int ring = 2;
  int kv_slots = 3;
  // A sequence may end before its last position.
  bool early_stop = false;
  int faults = 0;
  int cancels = 0;
  // Which faults: d decoder dies, r decoder released, l lease expires, s rank's stream, f follower's stream,
  // e rank dies, c capture is killed, g gateway dies.
  std::string fault_kinds = "drlsfecg";
  // Decoders that die stay away until calls have given up waiting for their readings.
  bool decoders_stay_away = false;
  // Every result comes after its lease has expired.
  bool slow_decoders = false;
  // This position of sequence 0 ends every decoder; -1: none.
  int poison = -1;
  // Sequences that must end OK whatever happens to the others.
  std::array<bool, kMaxSequences> must_end_ok = {};
  ActorRules rules;
  ProtocolPolicy policy;
  // Kept captures are read back at the end.
  bool read_back = true;
  // Timers of the service that are off.
  bool no_open_timeout = false;
  bool no_transient_ttl = false;
  bool no_delivery_limit = false;
};

// How one call ended.
enum class Outcome {
  kRunning,
  kOk,
  kOkMissing,
  kCancelled,
  kUnavailable,
  kStalled,
  kLost,
  kRefused,
  kDataLoss,
};

const char* OutcomeName(Outcome outcome);

}  // namespace sextant::testing
