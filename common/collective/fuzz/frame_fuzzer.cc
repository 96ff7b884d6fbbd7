// Fuzzes the parser of a group's frames: the first byte chooses how the stream is cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "common/collective/frame.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t cut = 1 + data[0];
  const absl::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  sextant::FrameParser parser;
  size_t framed = 0;
  for (size_t at = 0; at < stream.size(); at += cut) {
    const absl::Status status = parser.Feed(stream.substr(at, cut), [&](const sextant::Frame& frame) {
      const std::string again = sextant::EncodeFrame(frame);
      SEXTANT_CHECK(absl::string_view(again) == stream.substr(framed, again.size()));
      framed += again.size();
      return absl::OkStatus();
    });
    if (!status.ok()) return 0;
    SEXTANT_CHECK(framed <= std::min(at + cut, stream.size()));
  }
  return 0;
}
