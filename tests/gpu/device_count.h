// How many devices this machine has.
#pragma once

#include <string>

namespace sextant {

// Devices that CUDA, real or emulated, shows. Asked in a child process: a process that has used CUDA cannot
// fork ranks that do. REQUIRES: one thread.
int CountDevices();

// Why a test of `needed` devices is skipped here; "" when it is not. tests/gpu/run knows these words.
std::string LacksDevices(int needed);

}  // namespace sextant
