// Command lines of services: absl flags preceded by their environment twins.
#include "common/base/flags.h"

#include <unistd.h>

#include <map>
#include <optional>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/version.h"
#include "kernels/status_macros.h"

ABSL_FLAG(std::string, host, "127.0.0.1", "Address to listen on. 0.0.0.0 listens on every interface.");
ABSL_FLAG(std::string, log_format, "text", "Form of log lines on standard error: text or json.");
ABSL_FLAG(std::string, log_level, "info", "Least level that is logged: debug, info, warning or error.");

namespace sextant {
namespace {

absl::Status FlagInvalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
}

bool IsOurs(absl::string_view filename) { return !absl::StrContains(filename, "absl/flags"); }

absl::Status StartLogging(absl::string_view service) {
  const std::map<std::string, LogFormat> formats = {{"text", LogFormat::kText}, {"json", LogFormat::kJson}};
  const std::map<std::string, LogLevel> levels = {{"debug", LogLevel::kDebug},
                                                  {"info", LogLevel::kInfo},
                                                  {"warning", LogLevel::kWarning},
                                                  {"error", LogLevel::kError}};
  const auto format = formats.find(absl::GetFlag(FLAGS_log_format));
  if (format == formats.end()) return FlagInvalid("--log_format must be text or json");
  const auto level = levels.find(absl::GetFlag(FLAGS_log_level));
  if (level == levels.end()) return FlagInvalid("--log_level must be debug, info, warning or error");
  InitLogging(service, format->second, level->second);
  return absl::OkStatus();
}

}  // namespace

absl::Status SetFlagsFromEnvironment(const std::vector<std::string>& environment) {
  std::map<std::string, std::string> values;
  for (const std::string& entry : environment) {
    const size_t equals = entry.find('=');
    if (absl::StartsWith(entry, "SEXTANT_") && equals != std::string::npos) {
      values[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
  }
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!IsOurs(flag->Filename())) continue;
    const auto value = values.find(absl::StrCat("SEXTANT_", absl::AsciiStrToUpper(name)));
    if (value == values.end()) continue;
    std::string error;
    if (!flag->ParseFrom(value->second, &error)) {
      return FlagInvalid(absl::StrCat("environment variable ", value->first, ": ", error));
    }
  }
  return absl::OkStatus();
}

absl::Status ParseFlags(int argc, char** argv, absl::string_view service, absl::string_view usage) {
  absl::SetProgramUsageMessage(absl::StrCat(
      usage, "\nEvery flag has an environment twin, e.g. SEXTANT_LOG_LEVEL; the command line wins."));
  absl::FlagsUsageConfig config;
  config.contains_helpshort_flags = IsOurs;
  config.contains_help_flags = IsOurs;
  config.contains_helppackage_flags = IsOurs;
  config.version_string = [name = std::string(service)] {
    return absl::StrCat("sextant ", name, " ", Version(), "\n");
  };
  absl::SetFlagsUsageConfig(config);

  std::vector<std::string> environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) environment.push_back(*entry);
  SEXTANT_RETURN_IF_ERROR(SetFlagsFromEnvironment(environment));
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    return FlagInvalid(absl::StrCat("unexpected argument '", rest[1], "'; flags are written --name=value"));
  }
  return StartLogging(service);
}

}  // namespace sextant
