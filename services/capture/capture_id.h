// The 128-bit name of one capture: random, new for every attempt at a generation.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"

namespace sextant {

class CaptureId {
 public:
  static constexpr size_t kBytes = 16;

  // All zero: the id of no capture.
  CaptureId() : bytes_(kBytes, '\0') {}

  // The id carried by a message's `bytes` field; nullopt unless it holds 16 bytes.
  static std::optional<CaptureId> FromBytes(absl::string_view bytes) {
    if (bytes.size() != kBytes) return std::nullopt;
    return CaptureId(std::string(bytes));
  }
  // The id written as 32 hex digits.
  static std::optional<CaptureId> FromHex(absl::string_view hex) {
    if (hex.size() != 2 * kBytes || hex.find_first_not_of("0123456789abcdef") != hex.npos)
      return std::nullopt;
    return CaptureId(absl::HexStringToBytes(hex));
  }

  const std::string& bytes() const { return bytes_; }
  std::string hex() const { return absl::BytesToHexString(bytes_); }

  friend bool operator==(const CaptureId& a, const CaptureId& b) { return a.bytes_ == b.bytes_; }
  friend bool operator<(const CaptureId& a, const CaptureId& b) { return a.bytes_ < b.bytes_; }
  template <typename H>
  friend H AbslHashValue(H state, const CaptureId& id) {
    return H::combine(std::move(state), id.bytes_);
  }

 private:
  explicit CaptureId(std::string bytes) : bytes_(std::move(bytes)) {}
  std::string bytes_;
};

}  // namespace sextant
