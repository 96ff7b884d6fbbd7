// Leaves out one barrier or wait of the sources, to see whether a test notices.
#include "kernels/cuda/emulation/dropped.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace sextant::emulation {
namespace {

struct Dropped {
  std::string file;   // without its folder
  unsigned line = 0;  // 0: nothing is dropped
  std::atomic<int64_t> count = 0;
};
Dropped& TheDropped() {
  static Dropped dropped;
  return dropped;
}

}  // namespace

void Drop(const std::string& place) {
  const size_t colon = place.find(':');
  TheDropped().file = place.substr(0, colon);
  TheDropped().line = colon == std::string::npos ? 0 : std::strtoul(place.c_str() + colon + 1, nullptr, 10);
}

int64_t DroppedCount() { return TheDropped().count; }

bool IsDropped(const std::source_location& site) {
  Dropped& dropped = TheDropped();
  if (site.line() != dropped.line) return false;
  const char* const slash = std::strrchr(site.file_name(), '/');
  if (dropped.file != (slash == nullptr ? site.file_name() : slash + 1)) return false;
  ++dropped.count;
  return true;
}

}  // namespace sextant::emulation
