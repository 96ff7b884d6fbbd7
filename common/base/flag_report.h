// What --print-config says: every flag's value, and where it came from.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sextant {

struct FlagReport {
  std::string name;
  std::string value;
  std::string default_value;
  // "default", "environment SEXTANT_...", "command line" or "flagfile".
  std::string source;
};

// Whether a flag of this name holds a secret: its last word is password, secret, token, key or credentials.
// One that names a secret's file does not.
bool IsSecretFlag(absl::string_view name);

// A file for --flagfile, a comment over each line saying where its value is from. A secret is a comment
// altogether: it must be given anew.
std::string AsFlagfile(absl::string_view title, const std::vector<FlagReport>& flags);

// {"service", "version", "flags": {name: {"value", "source", "default"}}}; values are strings as on a command
// line, and a secret's are asterisks.
std::string AsJson(absl::string_view service, absl::string_view version,
                   const std::vector<FlagReport>& flags);

}  // namespace sextant
