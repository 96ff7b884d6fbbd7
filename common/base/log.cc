// Structured logs: one write per line, so lines of several threads never mix.
#include "common/base/log.h"

#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

// The one process-wide setting of the suite: a log line may come from anywhere.
struct Settings {
  std::string service = "sextant";
  LogFormat format = LogFormat::kText;
  LogLevel least = LogLevel::kInfo;
};

Settings& GetSettings() {
  static Settings settings;
  return settings;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

}  // namespace

void InitLogging(absl::string_view service, LogFormat format, LogLevel least) {
  GetSettings() = {std::string(service), format, least};
}

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  const Settings& settings = GetSettings();
  if (level < settings.least) return;
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::string line;
  if (settings.format == LogFormat::kJson) {
    nlohmann::ordered_json json = {{"time", time},
                                   {"level", LevelName(level)},
                                   {"service", settings.service},
                                   {"message", std::string(message)}};
    for (const LogField& field : fields) {
      auto number = nlohmann::ordered_json::parse(field.is_number ? field.value : "", nullptr, false);
      // "nan" and "inf" are not numbers of JSON.
      json[field.name] = number.is_number() ? number : nlohmann::ordered_json(field.value);
    }
    line = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  } else {
    line = absl::StrCat(time, " ", LevelName(level), " ", settings.service, ": ", message);
    for (const LogField& field : fields) {
      if (field.is_number) {
        absl::StrAppend(&line, " ", field.name, "=", field.value);
      } else {
        absl::StrAppend(
            &line, " ", field.name, "=",
            nlohmann::json(field.value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      }
    }
  }
  line.push_back('\n');
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace sextant
