// Allocates the host memory that CPU tensors and packed matrices live in.
#include "kernels/cpu/aligned_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sextant::cpu {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kHugeFrom = int64_t{4} << 20;

// What the machine has in all. An overcommitting system promises more, and ends the process when it is
// touched.
int64_t PhysicalBytes() { return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE); }

}  // namespace

absl::StatusOr<Buffer> AllocateAligned(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  const bool huge = bytes >= kHugeFrom;
  void* data = nullptr;
  if (bytes > PhysicalBytes() ||
      posix_memalign(&data, huge ? kHugePage : kLine, static_cast<size_t>(std::max(bytes, kLine))) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", bytes, " bytes; use a smaller model, KV cache or buffer"));
  }
  // Advice only: where transparent huge pages are off, ordinary pages serve.
  if (huge) madvise(data, static_cast<size_t>(bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
  return Buffer(data, bytes, [](void* pointer) { std::free(pointer); });
}

}  // namespace sextant::cpu
