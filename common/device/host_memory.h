// How much memory this machine has.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace sextant {

inline int64_t HostMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

}  // namespace sextant
