// Device names, and what a build without CUDA says to them.
#include "common/device/device.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace sextant {
namespace {

TEST(DeviceTest, NamesAreReadAndWritten) {
  for (const char* name : {"cpu", "cuda:0", "cuda:7"}) {
    const auto device = ParseDevice(name);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(device->Name(), name);
  }
  EXPECT_EQ(ParseDevice("cuda")->Name(), "cuda:0");
  for (const char* wrong : {"", "gpu", "cuda:", "cuda:-1", "cuda:1024", "cuda:1x", "CPU", "cpu:0"}) {
    EXPECT_EQ(ErrorReason(ParseDevice(wrong).status()), "FLAG_INVALID") << wrong;
  }
}

TEST(DeviceTest, RanksOfAHostTakeDevicesInTurn) {
  EXPECT_EQ(DeviceOfRank(*ParseDevice("cuda:2"), 3).Name(), "cuda:5");
  EXPECT_EQ(DeviceOfRank(*ParseDevice("cpu"), 3).Name(), "cpu");
}

}  // namespace
}  // namespace sextant
