// Leaves out one barrier or wait of the sources, to see whether a test notices.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>

namespace sextant::emulation {

// From now on the barriers and waits at `place`, "norm.cu:32", do nothing. REQUIRES: nothing runs meanwhile.
void Drop(const std::string& place);
// How many were left out.
int64_t DroppedCount();

// Asked by every barrier and wait, of the place that called it. Threads: any.
bool IsDropped(const std::source_location& site);

}  // namespace sextant::emulation
