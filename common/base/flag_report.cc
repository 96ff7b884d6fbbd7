// What --print-config says.
#include "common/base/flag_report.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

constexpr char kMask[] = "********";

// An unset secret is worth knowing, and tells nothing.
std::string Shown(const std::string& name, const std::string& value) {
  return IsSecretFlag(name) && !value.empty() ? kMask : value;
}

}  // namespace

bool IsSecretFlag(absl::string_view name) {
  constexpr std::array<absl::string_view, 5> kWords = {"password", "secret", "token", "key", "credentials"};
  const size_t underscore = name.rfind('_');
  const absl::string_view last = underscore == absl::string_view::npos ? name : name.substr(underscore + 1);
  for (const absl::string_view word : kWords) {
    if (last == word) return true;
  }
  return false;
}

std::string AsFlagfile(absl::string_view title, const std::vector<FlagReport>& flags) {
  std::string text = absl::StrCat("# ", title, "\n");
  for (const FlagReport& flag : flags) {
    const std::string shown = Shown(flag.name, flag.value);
    // A line break would end the flag in the file.
    const bool usable = shown == flag.value && flag.value.find('\n') == std::string::npos;
    absl::StrAppend(&text, "# ", flag.source, "\n", usable ? "" : "# not written out: ", "--", flag.name,
                    usable ? absl::StrCat("=", shown) : "", "\n");
  }
  return text;
}

std::string AsJson(absl::string_view service, absl::string_view version,
                   const std::vector<FlagReport>& flags) {
  nlohmann::ordered_json values = nlohmann::ordered_json::object();
  for (const FlagReport& flag : flags) {
    values[flag.name] = {{"value", Shown(flag.name, flag.value)},
                         {"source", flag.source},
                         {"default", Shown(flag.name, flag.default_value)}};
  }
  const nlohmann::ordered_json report = {
      {"service", std::string(service)}, {"version", std::string(version)}, {"flags", values}};
  return report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace sextant
