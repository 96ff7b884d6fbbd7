// Parses and names devices.
#include "common/device/device.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/error.h"

namespace sextant {
namespace {

constexpr int kMostDevices = 1024;

}  // namespace

std::string Device::Name() const { return kind == DeviceKind::kCpu ? "cpu" : absl::StrCat("cuda:", index); }

absl::StatusOr<Device> ParseDevice(absl::string_view text) {
  if (text == "cpu") return Device{};
  if (text == "cuda") return Device{DeviceKind::kCuda, 0};
  int index = 0;
  if (absl::ConsumePrefix(&text, "cuda:") && absl::SimpleAtoi(text, &index) && index >= 0 &&
      index < kMostDevices) {
    return Device{DeviceKind::kCuda, index};
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID",
                   "--device must be cpu, cuda or cuda:N");
}

Device DeviceOfRank(const Device& first, int local_rank) {
  if (first.kind == DeviceKind::kCpu) return first;
  return {first.kind, first.index + local_rank};
}

}  // namespace sextant
