// Command lines of services: absl flags preceded by their environment twins.
#include "common/base/flags.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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
#include "absl/strings/strip.h"
#include "common/base/error.h"
#include "common/base/flag_report.h"
#include "common/base/log.h"
#include "common/base/version.h"
#include "kernels/status_macros.h"

ABSL_FLAG(std::string, host, "127.0.0.1", "Address to listen on. 0.0.0.0 listens on every interface.");
ABSL_FLAG(std::string, log_format, "text", "Form of log lines on standard error: text or json.");
ABSL_FLAG(std::string, log_level, "info", "Least level that is logged: debug, info, warning or error.");
ABSL_FLAG(std::string, print_config, "",
          "Prints the effective value of every flag and where it came from, then ends: flags (a file for "
          "--flagfile, and what --print-config alone means) or json. Secrets are masked.");

namespace sextant {
namespace {

absl::Status FlagInvalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
}

bool IsOurs(absl::string_view filename) { return !absl::StrContains(filename, "absl/flags"); }

// Whether people set it, here or in the environment.
bool IsForPeople(const absl::CommandLineFlag& flag) {
  return IsOurs(flag.Filename()) && !absl::StartsWith(flag.Help(), "Internal:");
}

std::string TwinOf(absl::string_view flag) { return absl::StrCat("SEXTANT_", absl::AsciiStrToUpper(flag)); }

std::map<std::string, std::string> CurrentValues() {
  std::map<std::string, std::string> values;
  for (const auto& [name, flag] : absl::GetAllFlags()) values[std::string(name)] = flag->CurrentValue();
  return values;
}

// "name" of "--name", "-name=value"; "" of what is no flag.
std::string NameOf(absl::string_view argument) {
  if (!absl::ConsumePrefix(&argument, "-")) return "";
  absl::ConsumePrefix(&argument, "-");
  return std::string(argument.substr(0, argument.find('=')));
}

// Everything that --print-config reports. `before` is what the flags held when the command line came.
std::vector<FlagReport> ReportFlags(const std::vector<std::string>& arguments,
                                    const std::set<std::string>& from_environment,
                                    const std::map<std::string, std::string>& before) {
  std::set<std::string> named;
  for (const std::string& argument : arguments) {
    named.insert(NameOf(argument));
    // Booleans: --noname.
    if (absl::StartsWith(NameOf(argument), "no")) named.insert(NameOf(argument).substr(2));
  }
  std::vector<FlagReport> report;
  for (const auto& [flag_name, flag] : absl::GetAllFlags()) {
    const std::string name(flag_name);
    if (!IsForPeople(*flag) || name == "print_config") continue;
    FlagReport& entry = report.emplace_back();
    entry = {name, flag->CurrentValue(), flag->DefaultValue(), "default"};
    if (from_environment.contains(name)) entry.source = absl::StrCat("environment ", TwinOf(name));
    // What the command line does not name and yet changed stands in a file that it names.
    if (entry.value != before.at(name)) entry.source = "flagfile";
    if (named.contains(name)) entry.source = "command line";
  }
  std::sort(report.begin(), report.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return report;
}

// Ends the process when --print_config asks for it.
absl::Status PrintConfig(absl::string_view service, const std::vector<FlagReport>& report) {
  const std::string form = absl::GetFlag(FLAGS_print_config);
  if (form.empty()) return absl::OkStatus();
  if (form != "flags" && form != "json") return FlagInvalid("--print_config must be flags or json");
  const std::string title =
      absl::StrCat("sextant ", service, " ", Version(), ": a file for --flagfile. Where each value is from:");
  const std::string text = form == "json" ? AsJson(service, Version(), report) : AsFlagfile(title, report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::exit(std::fflush(stdout) == 0 ? 0 : 1);
}

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

absl::StatusOr<std::set<std::string>> SetFlagsFromEnvironment(const std::vector<std::string>& environment) {
  std::map<std::string, std::string> values;
  for (const std::string& entry : environment) {
    const size_t equals = entry.find('=');
    if (absl::StartsWith(entry, "SEXTANT_") && equals != std::string::npos) {
      values[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
  }
  std::set<std::string> set;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!IsForPeople(*flag)) continue;
    const auto value = values.find(TwinOf(name));
    if (value == values.end()) continue;
    set.insert(std::string(name));
    std::string error;
    if (!flag->ParseFrom(value->second, &error)) {
      return FlagInvalid(absl::StrCat("environment variable ", value->first, ": ", error));
    }
  }
  return set;
}

std::vector<std::string> SpellFlags(const std::vector<std::string>& arguments) {
  std::vector<std::string> spelled = arguments;
  for (std::string& argument : spelled) {
    if (argument == "--") break;
    std::string name = NameOf(argument);
    const size_t begin = argument.find_first_not_of('-');
    std::replace(name.begin(), name.end(), '-', '_');
    // Anything else may be the value of the flag before it.
    if (name.empty() || absl::FindCommandLineFlag(name) == nullptr) continue;
    argument.replace(begin, name.size(), name);
    if (argument == "--print_config") argument += "=flags";
  }
  return spelled;
}

absl::Status ParseFlags(int argc, char** argv, absl::string_view service, absl::string_view usage) {
  absl::SetProgramUsageMessage(
      absl::StrCat(usage,
                   "\nEvery flag has an environment twin, SEXTANT_ and its name in capitals: --log_level is "
                   "SEXTANT_LOG_LEVEL.\nThe command line and --flagfile=FILE win over the environment; "
                   "--print-config shows "
                   "what came of it."));
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
  SEXTANT_ASSIGN_OR_RETURN(const std::set<std::string> from_environment,
                           SetFlagsFromEnvironment(environment));
  const std::map<std::string, std::string> before = CurrentValues();
  std::vector<std::string> arguments = SpellFlags({argv, argv + argc});
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const std::vector<char*> rest = absl::ParseCommandLine(argc, pointers.data());
  if (rest.size() > 1) {
    return FlagInvalid(absl::StrCat("unexpected argument '", rest[1], "'; flags are written --name=value"));
  }
  SEXTANT_RETURN_IF_ERROR(PrintConfig(service, ReportFlags(arguments, from_environment, before)));
  return StartLogging(service);
}

}  // namespace sextant
