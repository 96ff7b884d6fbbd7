// What a load test sends: arrivals, kinds of request and objectives, read from a small text file.
//
//   # a comment; blank lines are skipped
//   [load]
//   arrivals = poisson          # poisson | fixed
//   rate = 4                    # requests a second
//   duration = 30s              # during which requests start
//   warmup = 5s                 # of it, at the start, left out of the figures (default 0s)
//   timeout = 60s               # of one attempt (default 60s)
//   retries = 0                 # further attempts of a request (default 0)
//   seed = 1                    # of arrivals, kinds, sizes and tokens (default 1)
//   vectors = 0                 # steering vectors that are stored before the start (default 0)
//   first_token_objective = 2s  # goodput counts requests within both (default: none)
//   inter_token_objective = 1s
//
//   [request NAME]              # one or more
//   weight = 1                  # how often, relative to the others (default 1)
//   prompt = ids 16..64         # ids | text | chat, and how many ids or words
//   new_tokens = 8..32
//   lens = resid_post           # sites to decode through the lens (default none), and
//   lens_layers = 0,2           #   their layers (default: all)
//   top_k = 5
//   capture = resid_post        # sites to keep, read back and delete (default none), and
//   capture_layers = 0,2        #   their layers (default: all)
//   steer = 0..2                # how many of the stored vectors are applied (default 0)
//   temperature = 0             # (default 0)
//
// A range is N or N..M. Nothing may be repeated or unknown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "sextant/v1/types.pb.h"

namespace sextant::load {

// Both ends are included.
struct Range {
  int32_t least = 0;
  int32_t most = 0;
};

enum class Arrivals { kPoisson, kFixed };
enum class PromptKind { kIds, kText, kChat };

struct RequestKind {
  std::string name;
  double weight = 1;
  PromptKind prompt = PromptKind::kIds;
  Range prompt_size;
  Range new_tokens;
  std::vector<v1::Site> lens_sites;
  std::vector<int32_t> lens_layers;
  int32_t top_k = 5;
  std::vector<v1::Site> capture_sites;
  std::vector<int32_t> capture_layers;
  Range steer;
  double temperature = 0;
};

struct Scenario {
  Arrivals arrivals = Arrivals::kPoisson;
  double rate = 0;
  absl::Duration duration;
  absl::Duration warmup;
  absl::Duration timeout = absl::Seconds(60);
  int32_t retries = 0;
  uint64_t seed = 1;
  int32_t vectors = 0;
  absl::Duration first_token_objective = absl::InfiniteDuration();
  absl::Duration inter_token_objective = absl::InfiniteDuration();
  std::vector<RequestKind> requests;
};

// Requests that one run may have in all; see CheckScenario.
inline constexpr double kMaxRequests = 1e6;

// INVALID_ARGUMENT, its message beginning with "line N: ": LINE_MALFORMED, SECTION_UNKNOWN, SECTION_REPEATED,
// KEY_UNKNOWN, KEY_REPEATED, VALUE_INVALID; and CheckScenario's.
absl::StatusOr<Scenario> ParseScenario(absl::string_view text);

// What must hold of the whole, also after flags have replaced parts of it. INVALID_ARGUMENT: KEY_MISSING,
// NO_REQUESTS, TOO_MANY_REQUESTS, WARMUP_TOO_LONG, NOT_ENOUGH_VECTORS.
absl::Status CheckScenario(const Scenario& scenario);

}  // namespace sextant::load
