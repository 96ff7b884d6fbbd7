// The frames that processes of one group send each other over TCP.
//
// A frame is 8 bytes and a payload: kind (u8), flags (u8), zero (u16), payload length (u32), little-endian.
//   kHeartbeat  -
//   kPiece      bytes of a broadcast; flag kLastPiece ends it
//   kTaken      u64: pieces that this rank has taken since the beginning
//   kReport     i64 for each ReportWord: all of them, so that none is seen before one that was set earlier
//   kAbort      -
//   kNodeState  as of NodeState
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sextant {

enum class FrameKind : uint8_t { kHeartbeat = 1, kPiece, kTaken, kReport, kAbort, kNodeState };

struct Frame {
  static constexpr uint8_t kLastPiece = 1;

  FrameKind kind = FrameKind::kHeartbeat;
  uint8_t flags = 0;
  absl::string_view payload = {};
};

constexpr int64_t kFrameHeaderBytes = 8;
constexpr int64_t kMaxFramePayload = 256 << 10;

// REQUIRES: the payload is at most kMaxFramePayload.
std::string EncodeFrame(const Frame& frame);

// Little-endian numbers of payloads. Get... REQUIRES that the bytes are there.
void PutU32(std::string& out, uint32_t value);
void PutU64(std::string& out, uint64_t value);
uint32_t GetU32(absl::string_view bytes, size_t offset);
uint64_t GetU64(absl::string_view bytes, size_t offset);

// Cuts a stream of bytes into frames. Holds at most one incomplete frame.
class FrameParser {
 public:
  // Calls `on_frame` for every frame that is complete with these bytes; a payload is valid during its call.
  // Ends with the callback's first error. INVALID_ARGUMENT / GROUP_FRAME when the bytes are no frames; the
  // parser is of no use then.
  absl::Status Feed(absl::string_view bytes, const std::function<absl::Status(const Frame&)>& on_frame);

 private:
  std::string pending_;
};

}  // namespace sextant
