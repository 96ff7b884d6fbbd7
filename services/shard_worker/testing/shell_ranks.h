// Shell scripts for ranks, for tests of supervisors.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/shard_worker/supervisor.h"

namespace sextant {

// Options of a supervisor whose ranks run `script` by the shell, with their number in $r and the epoch in $e,
// after each has left its process id in rank-EPOCH-RANK in `folder`.
inline SupervisorOptions ShellRanks(const std::string& folder, const std::string& script) {
  SupervisorOptions options;
  options.program = "/bin/sh";
  options.arguments = {"-c",
                       absl::StrCat("r=${1#--rank=}; e=${2#--epoch=}; echo $$ > ", folder, "/part-$e-$r; mv ",
                                    folder, "/part-$e-$r ", folder, "/rank-$e-$r; ", script),
                       "rank"};
  options.farewell = absl::Milliseconds(50);
  options.first_backoff = absl::Milliseconds(10);
  return options;
}

// Process ids of the ranks of `folder`'s first group of `size` ranks that is later than `epoch`, by rank;
// `epoch` becomes its epoch. Empty while there is none.
inline std::map<int, pid_t> GroupAfter(const std::string& folder, size_t size, int64_t& epoch) {
  std::map<int64_t, std::map<int, pid_t>> groups;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    int64_t number;
    int rank;
    pid_t pid;
    if (std::sscanf(entry.path().filename().c_str(), "rank-%ld-%d", &number, &rank) != 2) continue;
    if (std::ifstream(entry.path()) >> pid) groups[number][rank] = pid;
  }
  for (const auto& [number, pids] : groups) {
    if (number <= epoch || pids.size() != size) continue;
    epoch = number;
    return pids;
  }
  return {};
}

}  // namespace sextant
