// Makes the CPU backend.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace sextant {

struct CpuBackendOptions {
  CpuIsa isa = BestCpuIsa();
  // Queued work runs only when something waits for it, so that a missing wait shows in a test.
  bool late = false;
};

// FAILED_PRECONDITION when this machine lacks the instruction set asked for.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace sextant
