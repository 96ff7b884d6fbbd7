// What the scheduler asks of the capture service, through rank 0's stream.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace sextant {

// Calls return at once; what was asked is sent, and sent again after each reconnect, until it is answered.
// Answers come back as Scheduler::OnCredit, OnSealed and OnGone. Threads: any.
class CaptureControl {
 public:
  virtual ~CaptureControl() = default;
  // Binds the capture to this engine's epoch; asks for credit.
  virtual void Attach(const std::string& address, const std::string& capture, int64_t position_bytes) = 0;
  // The leader's count of recorded positions, and of those for the lens.
  virtual void Seal(const std::string& capture, int32_t position_count, int32_t lens_position_count) = 0;
  // Gives the capture up.
  virtual void End(const std::string& capture, absl::string_view reason) = 0;
  // Whether rank 0's stream to `address` is up.
  virtual bool Reachable(const std::string& address) const = 0;
};

}  // namespace sextant
