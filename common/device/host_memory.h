// How much memory this process may use of the machine's.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

namespace sextant {

// The limit in a control group's file (cgroup v2): a number of bytes. INT64_MAX where it says "max", is not
// there or says something else.
inline int64_t MemoryLimitBytes(const std::string& path) {
  int64_t bytes = 0;
  std::ifstream file(path);
  return file >> bytes && bytes > 0 ? bytes : std::numeric_limits<int64_t>::max();
}

// The machine's memory, or the limit of the container, which sees its own control group as the root, where
// that is less.
inline int64_t HostMemoryBytes() {
  const int64_t machine = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  return std::min(machine, MemoryLimitBytes("/sys/fs/cgroup/memory.max"));
}

}  // namespace sextant
