// Names of devices, and the memory of the host.
#include "common/device/device.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "common/base/error.h"
#include "common/device/host_memory.h"

namespace sextant {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// What is read from a control group's file that says `text`.
int64_t LimitOf(const std::string& text) {
  const std::string path = testing::TempDir() + "/memory.max." + std::to_string(getpid());
  std::ofstream(path) << text;
  const int64_t bytes = MemoryLimitBytes(path);
  unlink(path.c_str());
  return bytes;
}

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

TEST(HostMemoryTest, AContainersLimitIsRead) {
  EXPECT_EQ(LimitOf("1073741824\n"), 1073741824);
  EXPECT_EQ(LimitOf("max\n"), kNoLimit);
  EXPECT_EQ(LimitOf(""), kNoLimit);
  EXPECT_EQ(MemoryLimitBytes("/no/such/file"), kNoLimit);
}

TEST(HostMemoryTest, NoMoreThanTheMachineHasAndItsLimitAllows) {
  EXPECT_GT(HostMemoryBytes(), 0);
  EXPECT_LE(HostMemoryBytes(), static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE));
  EXPECT_LE(HostMemoryBytes(), MemoryLimitBytes("/sys/fs/cgroup/memory.max"));
}

TEST(HostMemoryTest, BothVersionsOfControlGroupsAreRead) {
  const std::string groups = testing::TempDir() + "/groups." + std::to_string(getpid());
  std::filesystem::create_directories(groups + "/memory");
  const int64_t machine = HostMemoryBytes(groups);
  const auto write = [&](const char* file, const char* text) { std::ofstream(groups + file) << text; };
  // What version 1 says without a limit; older kernels say one that is no int64.
  for (const char* none : {"9223372036854771712\n", "18446744073709551615\n"}) {
    write("/memory/memory.limit_in_bytes", none);
    EXPECT_EQ(HostMemoryBytes(groups), machine);
  }
  write("/memory/memory.limit_in_bytes", "67108864\n");
  EXPECT_EQ(HostMemoryBytes(groups), 67108864);
  write("/memory.max", "33554432\n");
  EXPECT_EQ(HostMemoryBytes(groups), 33554432);
  std::filesystem::remove_all(groups);
}

}  // namespace
}  // namespace sextant
