// Writes and reads ledgers.
#include "loadtest/sextant_load/ledger_file.h"

#include <fstream>
#include <limits>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"
#include "nlohmann/json.hpp"

namespace sextant::load {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
// Far more than memory holds, and within what a position in a vector can be.
constexpr int64_t kMostPlanned = 10'000'000;
constexpr int64_t kMostCode = static_cast<int64_t>(absl::StatusCode::kUnauthenticated);

Json JsonOfRuns(const IndexRuns& runs) {
  Json json = Json::array();
  for (const auto& [first, end] : runs.runs()) json.push_back({first, end});
  return json;
}

Json JsonOfAttempt(const Attempt& a) {
  Json kept = Json::array();
  for (const auto& [row, runs] : a.kept_positions) {
    kept.push_back({row.first, row.second, JsonOfRuns(runs)});
  }
  const bool delays = a.retry_after != absl::InfiniteDuration();
  return {{"request", a.request},
          {"attempt", a.number},
          {"prompt_ids", a.prompt_ids},
          {"new_tokens", a.new_tokens},
          {"lens_rows", a.lens_rows},
          {"capture_rows", a.capture_rows},
          {"meant_ns", absl::ToInt64Nanoseconds(a.meant_at)},
          {"sent_ns", absl::ToInt64Nanoseconds(a.sent_at)},
          {"started", a.started_count},
          {"prompt_count", a.prompt_count},
          {"token_indices", JsonOfRuns(a.token_indices)},
          {"token_ids", a.token_ids},
          {"reading_positions", JsonOfRuns(a.reading_positions)},
          {"misshapen", a.misshapen_count},
          {"finished", a.finished_count},
          {"generated", a.generated_count},
          {"missing_readings", a.missing_reading_count},
          {"kept", std::move(kept)},
          {"deleted", a.deleted ? 1 : 0},
          {"code", static_cast<int>(a.code)},
          {"reason", a.reason},
          {"retry_ns", delays ? absl::ToInt64Nanoseconds(a.retry_after) : -1},
          {"ended_ns", absl::ToInt64Nanoseconds(a.ended_at)}};
}

// Reads fields of one line's object and remembers the first that is not as it must be.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  int64_t Whole(const char* name, int64_t least, int64_t most) {
    const auto found = json_.find(name);
    if (found == json_.end() || !found->is_number_integer() || IsBeyond(*found, least, most)) {
      Miss(name);
      return least;
    }
    return found->get<int64_t>();
  }
  int32_t Count(const char* name) { return static_cast<int32_t>(Whole(name, 0, INT32_MAX)); }
  absl::Duration Time(const char* name) {
    return absl::Nanoseconds(Whole(name, -1, std::numeric_limits<int64_t>::max()));
  }
  std::string Text(const char* name) {
    const auto found = json_.find(name);
    if (found != json_.end() && found->is_string()) return found->get<std::string>();
    Miss(name);
    return "";
  }
  const Json& Array(const char* name) {
    const auto found = json_.find(name);
    if (found != json_.end() && found->is_array()) return *found;
    Miss(name);
    return kNone;
  }
  IndexRuns Runs(const char* name) { return RunsOf(name, Array(name)); }
  IndexRuns RunsOf(const char* name, const Json& array) {
    IndexRuns runs;
    if (!array.is_array()) Miss(name);
    for (const Json& pair : array) {
      if (!pair.is_array() || pair.size() != 2 || !IsIndex(pair[0]) || !IsIndex(pair[1]) ||
          pair[0].get<int32_t>() >= pair[1].get<int32_t>()) {
        Miss(name);
        break;
      }
      runs.AddRun({pair[0].get<int32_t>(), pair[1].get<int32_t>()});
    }
    return runs;
  }
  bool IsIndex(const Json& value) const {
    return value.is_number_integer() && !IsBeyond(value, 0, INT32_MAX);
  }
  void Miss(const char* name) {
    if (missed_.empty()) missed_ = name;
  }
  const std::string& missed() const { return missed_; }

 private:
  static bool IsBeyond(const Json& value, int64_t least, int64_t most) {
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return true;
    return value.get<int64_t>() < least || value.get<int64_t>() > most;
  }

  const Json kNone = Json::array();
  const Json& json_;
  std::string missed_;
};

void ReadKept(Fields& fields, Attempt* a) {
  for (const Json& row : fields.Array("kept")) {
    if (!row.is_array() || row.size() != 3 || !fields.IsIndex(row[0]) || !fields.IsIndex(row[1])) {
      fields.Miss("kept");
      return;
    }
    const auto key = std::make_pair(row[0].get<int32_t>(), row[1].get<int32_t>());
    if (!a->kept_positions.emplace(key, fields.RunsOf("kept", row[2])).second) fields.Miss("kept");
  }
}

Attempt ReadAttempt(Fields& fields) {
  Attempt a;
  a.request = fields.Whole("request", 0, INT64_MAX);
  a.number = fields.Count("attempt");
  a.prompt_ids = static_cast<int32_t>(fields.Whole("prompt_ids", -1, INT32_MAX));
  a.new_tokens = fields.Count("new_tokens");
  a.lens_rows = fields.Count("lens_rows");
  a.capture_rows = fields.Count("capture_rows");
  a.meant_at = fields.Time("meant_ns");
  a.sent_at = fields.Time("sent_ns");
  a.started_count = fields.Count("started");
  a.prompt_count = fields.Count("prompt_count");
  a.token_indices = fields.Runs("token_indices");
  for (const Json& id : fields.Array("token_ids")) {
    if (!fields.IsIndex(id)) {
      fields.Miss("token_ids");
      break;
    }
    a.token_ids.push_back(id.get<int32_t>());
  }
  a.reading_positions = fields.Runs("reading_positions");
  a.misshapen_count = fields.Count("misshapen");
  a.finished_count = fields.Count("finished");
  a.generated_count = fields.Count("generated");
  a.missing_reading_count = fields.Count("missing_readings");
  ReadKept(fields, &a);
  a.deleted = fields.Whole("deleted", 0, 1) == 1;
  a.code = static_cast<absl::StatusCode>(fields.Whole("code", 0, kMostCode));
  a.reason = fields.Text("reason");
  const absl::Duration retry = fields.Time("retry_ns");
  a.retry_after = retry < absl::ZeroDuration() ? absl::InfiniteDuration() : retry;
  a.ended_at = fields.Time("ended_ns");
  return a;
}

absl::Status Malformed(size_t line, absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "LEDGER_MALFORMED",
                   absl::StrCat("line ", line, ": ", what));
}

}  // namespace

std::string LedgerText(const Ledger& ledger) {
  const Json header = {{"sextant_load_ledger", kVersion},
                       {"planned", ledger.planned_count},
                       {"retries", ledger.retries},
                       {"interrupted", ledger.interrupted ? 1 : 0}};
  std::string text = absl::StrCat(header.dump(), "\n");
  for (const Attempt& attempt : ledger.attempts) absl::StrAppend(&text, JsonOfAttempt(attempt).dump(), "\n");
  return text;
}

absl::StatusOr<Ledger> ParseLedger(const std::string& text) {
  Ledger ledger;
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty() && number > 1) continue;
    const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return Malformed(number, "this is no JSON object");
    Fields fields(json);
    if (number == 1) {
      (void)fields.Whole("sextant_load_ledger", kVersion, kVersion);
      ledger.planned_count = fields.Whole("planned", 0, kMostPlanned);
      ledger.retries = fields.Count("retries");
      ledger.interrupted = fields.Whole("interrupted", 0, 1) == 1;
    } else {
      ledger.attempts.push_back(ReadAttempt(fields));
    }
    if (!fields.missed().empty()) {
      return Malformed(number, absl::StrCat("'", fields.missed(), "' is missing or not what it must be"));
    }
  }
  return ledger;
}

absl::Status WriteLedger(const Ledger& ledger, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << LedgerText(ledger);
  file.close();
  if (file.good()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "LEDGER_NOT_WRITTEN",
                   absl::StrCat("cannot write ", path, ": is the folder there, and space on its disk?"));
}

absl::StatusOr<Ledger> ReadLedger(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file.good()) {
    return MakeError(absl::StatusCode::kNotFound, "LEDGER_NOT_FOUND", absl::StrCat("cannot read ", path));
  }
  return ParseLedger(text.str());
}

}  // namespace sextant::load
