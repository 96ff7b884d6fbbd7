// Command lines of services: the flags all of them share, environment twins, --help and --version.
//
// Every flag of a service is an absl flag with a one-line explanation. Each has an environment twin, SEXTANT_
// and the flag's name in upper case (--log_level: SEXTANT_LOG_LEVEL); the command line wins over the
// environment.
#pragma once

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
// --help and --version print and end the process, and so does an unknown flag (with exit status 1).
// INVALID_ARGUMENT / FLAG_INVALID for a value that does not parse in the environment, an unknown log setting,
// or stray arguments. REQUIRES: called once, before any thread starts.
absl::Status ParseFlags(int argc, char** argv, absl::string_view service, absl::string_view usage);

// Sets every flag that has an environment twin among `environment` ("NAME=value"); the part of ParseFlags
// that can be tested. INVALID_ARGUMENT / FLAG_INVALID names the variable.
absl::Status SetFlagsFromEnvironment(const std::vector<std::string>& environment);

}  // namespace sextant
