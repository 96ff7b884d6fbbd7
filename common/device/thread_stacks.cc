// Gives threads of programs that link CUDA's libraries stacks that can hold those libraries' thread-local
// storage.
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstddef>

namespace {

constexpr size_t kLeastBytes = size_t{1} << 20;

}  // namespace

// glibc puts thread-local storage of linked libraries on each thread's stack: cuBLASLt's and NCCL's are 104
// KiB. The HTTP server's library asks for stacks of 100 KiB, and its threads would not start (EINVAL). It has
// no setting for it, so this stands before glibc's function.
extern "C" __attribute__((visibility("default"))) int pthread_attr_setstacksize(pthread_attr_t* attributes,
                                                                                size_t bytes) noexcept {
  using Function = int (*)(pthread_attr_t*, size_t);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pthread_attr_setstacksize"));
  return next(attributes, std::max(bytes, kLeastBytes));
}
