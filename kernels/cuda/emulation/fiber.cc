// A thread of a block: a stack of its own, switched to and from by hand.
#include "kernels/cuda/emulation/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include "kernels/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a callee must keep (System V, x86-64) and the stack pointer, and takes up another's.
extern "C" void sextant_switch_stack(void** saved, void* loaded);
asm(R"(
.text
.globl sextant_switch_stack
.type sextant_switch_stack,@function
sextant_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sextant_switch_stack,.-sextant_switch_stack
)");

namespace sextant::emulation {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr size_t kGuardBytes = 4096;
constexpr int kSavedRegisters = 6;

}  // namespace

Fiber::Fiber() {
  pthread_attr_t attributes;
  SEXTANT_CHECK_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
  SEXTANT_CHECK_EQ(pthread_attr_getstack(&attributes, &bottom_, &bytes_), 0);
  pthread_attr_destroy(&attributes);
}

Fiber::Fiber(void (*entry)()) : bytes_(kStackBytes) {
  mapping_ = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  SEXTANT_CHECK(mapping_ != MAP_FAILED);
  // A kernel whose stack overflows faults instead of writing into the next one's.
  SEXTANT_CHECK_EQ(mprotect(mapping_, kGuardBytes, PROT_NONE), 0);
  bottom_ = static_cast<char*>(mapping_) + kGuardBytes;
  // A function is entered with the stack 8 bytes off a multiple of 16, by its return address.
  void** top = reinterpret_cast<void**>(static_cast<char*>(bottom_) + kStackBytes) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  stack_pointer_ = top - kSavedRegisters;
}

Fiber::~Fiber() {
  if (mapping_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
  // The next mapping at this address must not inherit poison.
  __asan_unpoison_memory_region(bottom_, bytes_);
#endif
  munmap(mapping_, kStackBytes + kGuardBytes);
}

void Fiber::Switch(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
  sextant_switch_stack(&from.stack_pointer_, to.stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::Arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

}  // namespace sextant::emulation
