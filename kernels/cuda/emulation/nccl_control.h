// What tests may ask of the emulated NCCL.
#pragma once

#include <cstdint>

#include "nccl.h"

namespace sextant::emulation {

// Communicators of this process that were neither destroyed nor aborted.
int LiveNcclCommunicators();

// The communicators of `rank` in this process report `error` asynchronously once they have begun `operations`
// more; it stays until ClearNcclFaults. Other ranks see nothing: as when a cable breaks, they wait.
void InjectNcclError(int rank, ncclResult_t error, int64_t operations = 0);
void ClearNcclFaults();

}  // namespace sextant::emulation
