// A group whose emulated GPU hangs.
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/base/error.h"
#include "kernels/cuda/emulation/control.h"
#include "services/shard_worker/testing/tiny_group_test.h"

namespace sextant {
namespace {

using HungDeviceTest = TinyGroupTest;

// In a group of one no other rank could miss this one. The process ends as a rank's does: what it holds of
// the device cannot be freed.
TEST_F(HungDeviceTest, CallsEndAtTheDeadlineAndThenTheProcess) {
  const auto run = [this] {
    WorkerConfig config = Config(1);
    config.device = {DeviceKind::kCuda, 3};
    config.step_deadline = absl::Seconds(3);
    LocalGroup group(config, 1000);
    if (!group.Run(Request(3, 4)).status.ok()) _exit(2);
    emulation::HangDevice(3, 20);
    if (ErrorReason(group.Run(Request(3, 20)).status) != "GROUP_LOST") _exit(3);
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(1), "DEVICE_HUNG.*--step_deadline");
}

}  // namespace
}  // namespace sextant
