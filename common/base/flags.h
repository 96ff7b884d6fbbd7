// Command lines of services: the flags all of them share, environment twins, --help, --version and
// --print-config.
//
// Every flag of a service is an absl flag with a one-line explanation, and may be written with dashes or
// underscores (--log-level, --log_level); inside a --flagfile with underscores only. Each has an environment
// twin, SEXTANT_ and the flag's name in upper case (SEXTANT_LOG_LEVEL); the command line, and files that it
// names with --flagfile, win over the environment. Flags whose explanation begins with "Internal:" are the
// processes' own: they have no twin and are not printed.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// Shared by all services; define service flags in the service's config.cc.
ABSL_DECLARE_FLAG(std::string, host);        // address to listen on
ABSL_DECLARE_FLAG(std::string, log_format);  // text | json
ABSL_DECLARE_FLAG(std::string, log_level);   // debug | info | warning | error

namespace sextant {

// What main does first: reads the environment twins, then the command line, then starts logging as `service`.
// --help, --version and --print-config print and end the process, and so does an unknown flag (with exit
// status 1). INVALID_ARGUMENT / FLAG_INVALID for a value that does not parse in the environment, an unknown
// log setting, or stray arguments. REQUIRES: called once, before any thread starts.
absl::Status ParseFlags(int argc, char** argv, absl::string_view service, absl::string_view usage);

// Sets every flag that has an environment twin among `environment` ("NAME=value"); the part of ParseFlags
// that can be tested. The names of the flags set. INVALID_ARGUMENT / FLAG_INVALID names the variable.
absl::StatusOr<std::set<std::string>> SetFlagsFromEnvironment(const std::vector<std::string>& environment);

// The arguments with underscores for the dashes in names of flags, and --print_config with its value.
std::vector<std::string> SpellFlags(const std::vector<std::string>& arguments);

}  // namespace sextant
