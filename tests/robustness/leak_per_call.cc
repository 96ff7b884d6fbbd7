// A leak for tests: preloaded into a service, it forgets a little memory whenever an id is drawn, as for
// every call.
#include <dlfcn.h>

#include <cstdlib>

namespace {
// A call draws a few times.
constexpr size_t kBytesPerDraw = 48;
// Volatile, so that the allocation is not left out.
void* volatile forgotten;
}  // namespace

// std::random_device::_M_getval(), found here before in the C++ library.
extern "C" unsigned _ZNSt13random_device9_M_getvalEv(void* self) {
  static const auto real =
      reinterpret_cast<unsigned (*)(void*)>(dlsym(RTLD_NEXT, "_ZNSt13random_device9_M_getvalEv"));
  forgotten = std::malloc(kBytesPerDraw);
  return real(self);
}
