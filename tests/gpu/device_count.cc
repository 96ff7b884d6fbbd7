// How many devices this machine has.
#include "tests/gpu/device_count.h"

#include <cuda_runtime_api.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace sextant {

int CountDevices() {
  const pid_t child = fork();
  if (child == 0) {
    int count = 0;
    _exit(cudaGetDeviceCount(&count) == cudaSuccess ? count : 0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 0;
  return WEXITSTATUS(status);
}

std::string LacksDevices(int needed) {
  const int here = CountDevices();
  return here >= needed ? "" : absl::StrCat("needs ", needed, " devices; here: ", here);
}

}  // namespace sextant
