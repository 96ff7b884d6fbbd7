// What tests may ask of the emulated NCCL.
#pragma once

#include <chrono>
#include <cstdint>

#include "nccl.h"

namespace sextant::emulation {

// How NCCL behaves towards captures and callers that do not wait.
struct NcclRules {
  // How often ncclCommGetAsyncError answers ncclInProgress before a call has taken effect. Its work is queued
  // only then, and no other call is taken before.
  int progress_answers = 2;
  // After ncclCommInitRankConfig the ranks take this long to come together.
  std::chrono::milliseconds joins_after{0};
  // A capture does not make connections: what was never used outside of one fails in it. (Real NCCL may be
  // able to, or not: it depends on the transport.)
  bool refuse_first_use_in_capture = true;
  // Nothing can be captured: nowhere, or by one rank.
  bool refuse_captures = false;
  int refusing_rank = -1;
  // What was captured never ends, except by an abort.
  bool replays_hang = false;
  // ncclCommAbort never returns.
  bool aborts_hang = false;
  // ncclCommAbort takes its time.
  int abort_milliseconds = 0;
};
// Of the whole process, from now on.
void SetNcclRules(const NcclRules& rules);

// Communicators of this process that were neither destroyed nor aborted.
int LiveNcclCommunicators();

// The communicators of `rank` in this process report `error` asynchronously once they have begun `operations`
// more; it stays until ClearNcclFaults. Other ranks see nothing: as when a cable breaks, they wait.
void InjectNcclError(int rank, ncclResult_t error, int64_t operations = 0);
void ClearNcclFaults();

}  // namespace sextant::emulation
