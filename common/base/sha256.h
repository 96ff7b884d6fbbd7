// SHA-256 digests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sextant {

// Computes the SHA-256 of bytes given piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(absl::Span<const uint8_t> bytes);
  void Update(absl::string_view bytes);
  // The 32 bytes of the digest. The object must not be used afterwards.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// The 64 lower-case hex digits of bytes' SHA-256.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace sextant
