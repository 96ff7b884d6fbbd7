// How much memory this process may use of the machine's.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

namespace sextant {

// The limit in a control group's file: a number of bytes. INT64_MAX where it says "max" (cgroup v2), is not
// there or says something else.
inline int64_t MemoryLimitBytes(const std::string& path) {
  int64_t bytes = 0;
  std::ifstream file(path);
  return file >> bytes && bytes > 0 ? bytes : std::numeric_limits<int64_t>::max();
}

// The machine's memory, or the limit of the container, which sees its own control group as the root `groups`,
// where that is less. Of the two versions of control groups one has a file; version 1 says "no limit" by a
// number larger than any machine.
inline int64_t HostMemoryBytes(const std::string& groups = "/sys/fs/cgroup") {
  const int64_t machine = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  return std::min({machine, MemoryLimitBytes(groups + "/memory.max"),
                   MemoryLimitBytes(groups + "/memory/memory.limit_in_bytes")});
}

}  // namespace sextant
