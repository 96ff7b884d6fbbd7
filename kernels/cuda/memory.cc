// The device's and the pinned memory of one backend, and an account of what it is for.
#include "kernels/cuda/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

constexpr const char* kPurposeNames[kPurposeCount] = {"weights",   "buffers",         "workspace",
                                                      "arguments", "capture staging", "pinned"};

double ToGib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

std::string Allocator::Describe() const {
  const MemoryAccount numbers = account();
  std::string text;
  for (int i = 0; i < kPurposeCount; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", kPurposeNames[i], " ", ToGib(numbers.bytes[i]), " GiB");
  }
  return text;
}

absl::StatusOr<Buffer> Allocator::Allocate(int64_t bytes, Purpose purpose) {
  SEXTANT_CHECK_GE(bytes, 0);
  SEXTANT_RETURN_IF_ERROR(waits_->status());
  const bool pinned = purpose == Purpose::kPinned;
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  void* memory = nullptr;
  const cudaError_t error =
      pinned ? cudaHostAlloc(&memory, size, cudaHostAllocPortable) : cudaMalloc(&memory, size);
  if (error == cudaErrorMemoryAllocation) {
    // An error of this kind does not last; it must not be taken for a later call's.
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return absl::ResourceExhaustedError(
        absl::StrCat("no ", ToGib(bytes), " GiB of ", pinned ? "pinned host" : "device", " memory for ",
                     kPurposeNames[static_cast<int>(purpose)], "; device ", ordinal_, " has ",
                     ToGib(static_cast<int64_t>(free_bytes)), " of ",
                     ToGib(static_cast<int64_t>(total_bytes)), " GiB free; in use: ", Describe()));
  }
  if (error != cudaSuccess) return ToStatus(error, "allocation");
  {
    absl::MutexLock lock(&account_->mutex);
    int64_t& used = account_->numbers.bytes[static_cast<int>(purpose)];
    int64_t& peak = account_->numbers.peak_bytes[static_cast<int>(purpose)];
    used += bytes;
    peak = std::max(peak, used);
    account_->buffers[reinterpret_cast<uintptr_t>(memory)] = {static_cast<int64_t>(size), purpose};
  }
  return Buffer(memory, bytes,
                [account = account_, waits = waits_, ordinal = ordinal_, bytes, purpose](void* freed) {
                  waits->BeforeFreeing();
                  {
                    absl::MutexLock lock(&account->mutex);
                    account->numbers.bytes[static_cast<int>(purpose)] -= bytes;
                    account->buffers.erase(reinterpret_cast<uintptr_t>(freed));
                  }
                  // What this returns is an earlier fault, which whoever waits has seen.
                  cudaSetDevice(ordinal);
                  static_cast<void>(purpose == Purpose::kPinned ? cudaFreeHost(freed) : cudaFree(freed));
                });
}

const std::pair<const uintptr_t, Allocator::Held>* Allocator::Account::Find(const void* memory) const {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  const auto next = buffers.upper_bound(address);
  if (next == buffers.begin()) return nullptr;
  const auto found = std::prev(next);
  return address < found->first + static_cast<uintptr_t>(found->second.bytes) ? &*found : nullptr;
}

bool Allocator::Owns(const void* memory) const {
  absl::MutexLock lock(&account_->mutex);
  return account_->Find(memory) != nullptr;
}

std::optional<MemoryRange> Allocator::FindPinned(const void* memory) const {
  absl::MutexLock lock(&account_->mutex);
  const auto* const found = account_->Find(memory);
  if (found == nullptr || found->second.purpose != Purpose::kPinned) return std::nullopt;
  return MemoryRange{found->first, found->first + static_cast<uintptr_t>(found->second.bytes)};
}

MemoryAccount Allocator::account() const {
  absl::MutexLock lock(&account_->mutex);
  return account_->numbers;
}

}  // namespace sextant::cuda
