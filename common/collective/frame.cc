// Encodes and parses the frames of a group.
#include "common/collective/frame.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

absl::Status NoFrame(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "GROUP_FRAME",
                   absl::StrCat("a peer of the group sent bytes that are no frame: ", what));
}

// The payload's length, if the header is one.
absl::Status CheckHeader(absl::string_view header) {
  const uint8_t kind = static_cast<uint8_t>(header[0]);
  if (kind < static_cast<uint8_t>(FrameKind::kHeartbeat) ||
      kind > static_cast<uint8_t>(FrameKind::kNodeState)) {
    return NoFrame(absl::StrCat("kind ", kind));
  }
  if (header[2] != 0 || header[3] != 0) return NoFrame("reserved bytes are set");
  if (GetU32(header, 4) > kMaxFramePayload)
    return NoFrame(absl::StrCat("a payload of ", GetU32(header, 4), " bytes"));
  return absl::OkStatus();
}

}  // namespace

void PutU32(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

void PutU64(std::string& out, uint64_t value) {
  PutU32(out, static_cast<uint32_t>(value));
  PutU32(out, static_cast<uint32_t>(value >> 32));
}

uint32_t GetU32(absl::string_view bytes, size_t offset) {
  SEXTANT_CHECK(offset + 4 <= bytes.size());
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  return value;
}

uint64_t GetU64(absl::string_view bytes, size_t offset) {
  return GetU32(bytes, offset) | static_cast<uint64_t>(GetU32(bytes, offset + 4)) << 32;
}

std::string EncodeFrame(const Frame& frame) {
  SEXTANT_CHECK(frame.payload.size() <= kMaxFramePayload);
  std::string bytes;
  bytes.reserve(kFrameHeaderBytes + frame.payload.size());
  bytes.push_back(static_cast<char>(frame.kind));
  bytes.push_back(static_cast<char>(frame.flags));
  bytes.append(2, '\0');
  PutU32(bytes, static_cast<uint32_t>(frame.payload.size()));
  bytes.append(frame.payload.data(), frame.payload.size());
  return bytes;
}

absl::Status FrameParser::Feed(absl::string_view bytes,
                               const std::function<absl::Status(const Frame&)>& on_frame) {
  pending_.append(bytes.data(), bytes.size());
  absl::string_view rest = pending_;
  while (rest.size() >= kFrameHeaderBytes) {
    SEXTANT_RETURN_IF_ERROR(CheckHeader(rest));
    const size_t length = GetU32(rest, 4);
    if (rest.size() < kFrameHeaderBytes + length) break;
    SEXTANT_RETURN_IF_ERROR(on_frame({static_cast<FrameKind>(rest[0]), static_cast<uint8_t>(rest[1]),
                                      rest.substr(kFrameHeaderBytes, length)}));
    rest.remove_prefix(kFrameHeaderBytes + length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return absl::OkStatus();
}

}  // namespace sextant
