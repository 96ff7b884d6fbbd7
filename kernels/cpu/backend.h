// Makes the CPU backend.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"

namespace sextant {

enum class CpuIsa { kReference, kAvx2, kAvx512Bf16 };

// The best instruction set this machine has.
CpuIsa BestCpuIsa();

struct CpuBackendOptions {
  CpuIsa isa = BestCpuIsa();
  // Queued work runs only when something waits for it, so that a missing wait shows in a test.
  bool late = false;
};

// FAILED_PRECONDITION when this machine lacks the instruction set asked for.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace sextant
