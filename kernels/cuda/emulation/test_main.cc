// main() of tests on the emulated machine: GoogleTest's, with two flags of the machine.
//   --drop=FILE:LINE  leaves out that barrier or wait; ends with 4 when the tests pass without coming by
//   --devices=N       devices of the machine
#include <cstdio>
#include <cstdlib>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/emulation/dropped.h"

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  std::string place;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag.rfind("--drop=", 0) == 0) place = flag.substr(7);
    if (flag.rfind("--devices=", 0) == 0) sextant::emulation::SetDeviceCount(std::atoi(flag.c_str() + 10));
  }
  sextant::emulation::Drop(place);
  const int code = RUN_ALL_TESTS();
  if (code != 0 || place.empty() || sextant::emulation::DroppedCount() > 0) return code;
  std::fprintf(stderr, "no test came by %s\n", place.c_str());
  return 4;
}
