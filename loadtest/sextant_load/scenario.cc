// Reads scenarios: lines into sections and keys, keys into fields, fields into a whole that makes sense.
#include "loadtest/sextant_load/scenario.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"
#include "loadtest/sextant_load/scenario_values.h"

namespace sextant::load {
namespace {

constexpr size_t kMaxLineBytes = 1000;
constexpr size_t kMaxKinds = 64;
constexpr int32_t kMaxTokens = 1 << 20;
constexpr int32_t kMaxVectors = 10'000;
constexpr int32_t kMaxRetries = 1000;
constexpr double kMaxRate = 1e5;

absl::Status Wrong(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::Status WrongAt(int line, absl::string_view reason, absl::string_view message) {
  return Wrong(reason, absl::StrCat("line ", line, ": ", message));
}

// Takes a value into its field; false when it is not one.
using Setter = std::function<bool(absl::string_view)>;

// What a key is and what its value looks like.
struct Key {
  const char* form;
  Setter set;
};
using Keys = std::map<std::string, Key>;

template <typename Field, typename Parsed>
bool Take(const std::optional<Parsed>& parsed, Field* field) {
  if (parsed.has_value()) *field = static_cast<Field>(*parsed);
  return parsed.has_value();
}

Keys KeysOfLoad(Scenario* s) {
  const auto time = [](absl::Duration* field) {
    return [field](absl::string_view v) { return Take(ParseTime(v), field); };
  };
  Keys keys;
  keys["arrivals"] = {"poisson or fixed", [s](absl::string_view v) {
                        s->arrivals = v == "fixed" ? Arrivals::kFixed : Arrivals::kPoisson;
                        return v == "fixed" || v == "poisson";
                      }};
  keys["rate"] = {"requests a second, above 0 and at most 100000",
                  [s](absl::string_view v) { return Take(ParseDecimal(v, 1e-6, kMaxRate), &s->rate); }};
  keys["duration"] = {"a time such as 30s, 500ms or 10m", time(&s->duration)};
  keys["warmup"] = {"a time such as 5s", time(&s->warmup)};
  keys["timeout"] = {"a time such as 60s", time(&s->timeout)};
  keys["retries"] = {"0 to 1000",
                     [s](absl::string_view v) { return Take(ParseWhole(v, 0, kMaxRetries), &s->retries); }};
  keys["seed"] = {"a whole number",
                  [s](absl::string_view v) { return Take(ParseWhole(v, 0, INT64_MAX), &s->seed); }};
  keys["vectors"] = {"0 to 10000",
                     [s](absl::string_view v) { return Take(ParseWhole(v, 0, kMaxVectors), &s->vectors); }};
  keys["first_token_objective"] = {"a time such as 2s", time(&s->first_token_objective)};
  keys["inter_token_objective"] = {"a time such as 200ms", time(&s->inter_token_objective)};
  return keys;
}

bool TakePrompt(absl::string_view value, RequestKind* kind) {
  static constexpr struct {
    const char* name;
    PromptKind kind;
  } kPrompts[] = {{"ids", PromptKind::kIds}, {"text", PromptKind::kText}, {"chat", PromptKind::kChat}};
  const size_t space = value.find(' ');
  if (space == absl::string_view::npos) return false;
  for (const auto& [name, prompt] : kPrompts) {
    if (value.substr(0, space) != name) continue;
    kind->prompt = prompt;
    const absl::string_view size = absl::StripAsciiWhitespace(value.substr(space));
    return Take(ParseRange(size, 1, kMaxTokens), &kind->prompt_size);
  }
  return false;
}

Keys KeysOfRequest(RequestKind* r) {
  Keys keys;
  keys["weight"] = {"above 0 and at most 1000",
                    [r](absl::string_view v) { return Take(ParseDecimal(v, 1e-6, 1000), &r->weight); }};
  keys["prompt"] = {"ids, text or chat, and a size such as 16..64",
                    [r](absl::string_view v) { return TakePrompt(v, r); }};
  keys["new_tokens"] = {"a range such as 8..32", [r](absl::string_view v) {
                          return Take(ParseRange(v, 1, kMaxTokens), &r->new_tokens);
                        }};
  keys["lens"] = {"sites such as resid_post,mlp_out",
                  [r](absl::string_view v) { return Take(ParseSites(v), &r->lens_sites); }};
  keys["lens_layers"] = {"ascending layers such as 0,2",
                         [r](absl::string_view v) { return Take(ParseLayers(v), &r->lens_layers); }};
  keys["top_k"] = {"1 to 100", [r](absl::string_view v) { return Take(ParseWhole(v, 1, 100), &r->top_k); }};
  keys["capture"] = {"sites such as resid_post,mlp_out",
                     [r](absl::string_view v) { return Take(ParseSites(v), &r->capture_sites); }};
  keys["capture_layers"] = {"ascending layers such as 0,2",
                            [r](absl::string_view v) { return Take(ParseLayers(v), &r->capture_layers); }};
  keys["steer"] = {"a range such as 0..2, at most 16",
                   [r](absl::string_view v) { return Take(ParseRange(v, 0, 16), &r->steer); }};
  keys["temperature"] = {"0 to 100",
                         [r](absl::string_view v) { return Take(ParseDecimal(v, 0, 100), &r->temperature); }};
  return keys;
}

bool IsName(absl::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-';
  });
}

// One pass over the lines; holds which section is open and which keys it has had.
class Parser {
 public:
  absl::Status Line(int number, absl::string_view line) {
    if (line.size() > kMaxLineBytes) {
      return WrongAt(number, "LINE_MALFORMED", absl::StrCat("longer than ", kMaxLineBytes, " bytes"));
    }
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) return absl::OkStatus();
    if (line.front() == '[') return OpenSection(number, line);
    const size_t equals = line.find('=');
    if (equals == absl::string_view::npos) {
      return WrongAt(number, "LINE_MALFORMED", "write [section], key = value or # a comment");
    }
    return SetKey(number, std::string(absl::StripAsciiWhitespace(line.substr(0, equals))),
                  absl::StripAsciiWhitespace(line.substr(equals + 1)));
  }

  Scenario Take() { return std::move(scenario_); }

 private:
  absl::Status OpenSection(int number, absl::string_view line) {
    if (line.back() != ']') return WrongAt(number, "LINE_MALFORMED", "a section's line ends with ]");
    const std::string name(absl::StripAsciiWhitespace(line.substr(1, line.size() - 2)));
    if (!sections_.insert(name).second) {
      return WrongAt(number, "SECTION_REPEATED", absl::StrCat("[", name, "] stands above already"));
    }
    seen_.clear();
    if (name == "load") {
      keys_ = KeysOfLoad(&scenario_);
      return absl::OkStatus();
    }
    const std::pair<std::string, std::string> words = absl::StrSplit(name, absl::MaxSplits(' ', 1));
    if (words.first != "request" || !IsName(words.second)) {
      return WrongAt(number, "SECTION_UNKNOWN",
                     absl::StrCat("[", name,
                                  "]: write [load] or [request NAME], the name of letters, "
                                  "digits, _ and -"));
    }
    if (scenario_.requests.size() == kMaxKinds) {
      return WrongAt(number, "SECTION_REPEATED", absl::StrCat("more than ", kMaxKinds, " kinds of request"));
    }
    scenario_.requests.emplace_back().name = words.second;
    // Made anew for every section, so that a vector that grows leaves no pointer behind.
    keys_ = KeysOfRequest(&scenario_.requests.back());
    return absl::OkStatus();
  }

  absl::Status SetKey(int number, const std::string& key, absl::string_view value) {
    const auto found = keys_.find(key);
    if (found == keys_.end()) {
      std::string known;
      for (const auto& [name, ignored] : keys_) absl::StrAppend(&known, known.empty() ? "" : ", ", name);
      return WrongAt(number, "KEY_UNKNOWN",
                     known.empty() ? absl::StrCat("'", key, "' stands before any section")
                                   : absl::StrCat("'", key, "' is none of: ", known));
    }
    if (!seen_.insert(key).second) {
      return WrongAt(number, "KEY_REPEATED", absl::StrCat("'", key, "' stands above already"));
    }
    if (!found->second.set(value)) {
      return WrongAt(number, "VALUE_INVALID",
                     absl::StrCat(key, " = '", value, "': it is ", found->second.form));
    }
    return absl::OkStatus();
  }

  Scenario scenario_;
  Keys keys_;
  std::set<std::string> sections_;
  std::set<std::string> seen_;
};

}  // namespace

absl::StatusOr<Scenario> ParseScenario(absl::string_view text) {
  Parser parser;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    SEXTANT_RETURN_IF_ERROR(parser.Line(++number, line));
  }
  Scenario scenario = parser.Take();
  SEXTANT_RETURN_IF_ERROR(CheckScenario(scenario));
  return scenario;
}

absl::Status CheckScenario(const Scenario& scenario) {
  if (scenario.rate <= 0) return Wrong("KEY_MISSING", "[load] needs rate = requests a second");
  if (scenario.duration <= absl::ZeroDuration()) {
    return Wrong("KEY_MISSING", "[load] needs duration = a time above 0");
  }
  if (scenario.timeout <= absl::ZeroDuration()) return Wrong("KEY_MISSING", "timeout must be above 0");
  if (scenario.rate * absl::ToDoubleSeconds(scenario.duration) > kMaxRequests) {
    return Wrong("TOO_MANY_REQUESTS",
                 absl::StrCat("rate times duration is more than ", kMaxRequests, " requests; shorten it"));
  }
  if (scenario.warmup >= scenario.duration) {
    return Wrong("WARMUP_TOO_LONG", "warmup must be shorter than duration");
  }
  if (scenario.requests.empty()) return Wrong("NO_REQUESTS", "write at least one [request NAME]");
  for (const RequestKind& kind : scenario.requests) {
    if (kind.prompt_size.most == 0) {
      return Wrong("KEY_MISSING", absl::StrCat("[request ", kind.name, "] needs prompt = ids 16..64"));
    }
    if (kind.new_tokens.most == 0) {
      return Wrong("KEY_MISSING", absl::StrCat("[request ", kind.name, "] needs new_tokens = 8..32"));
    }
    if (kind.steer.most > scenario.vectors) {
      return Wrong("NOT_ENOUGH_VECTORS", absl::StrCat("[request ", kind.name, "] applies ", kind.steer.most,
                                                      " vectors; [load] stores ", scenario.vectors));
    }
  }
  return absl::OkStatus();
}

}  // namespace sextant::load
