// One capture from Open to Close, held by the call it was opened for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/call_ids.h"
#include "services/gateway/capture_plan.h"
#include "sextant/internal/v1/capture.grpc.pb.h"

namespace sextant {

// `captures/{32 hex digits}` of a capture's 16 bytes.
std::string CaptureName(const std::string& id);

// The 16 bytes of a capture's name. INVALID_ARGUMENT / CAPTURE_NAME_INVALID.
absl::StatusOr<std::string> CaptureIdOfName(const std::string& name);

// What CaptureLifetime needs to know beside the plan.
struct CaptureOpening {
  std::string engine;
  CallIds ids;
  std::string model;
  std::string model_sha256;
  std::vector<int32_t> prompt_ids;
};

// Closes the capture when it goes away, whatever happened, unless told to leave it. Threads: one at a time.
class CaptureLifetime {
 public:
  // Opens a capture under a new random id. Not cancelled with the client's call, so that the answer is known
  // and Close comes after it. RESOURCE_EXHAUSTED with CAPTURE_BUDGET, CAPTURE_DISK or POSITION_TOO_BIG;
  // UNAVAILABLE / CAPTURE_UNREACHABLE.
  static absl::StatusOr<std::unique_ptr<CaptureLifetime>> Open(
      internal::v1::CaptureControlService::StubInterface& stub, const CapturePlan& plan,
      const CaptureOpening& opening, absl::Duration timeout);

  CaptureLifetime(internal::v1::CaptureControlService::StubInterface& stub, std::string id, CallIds ids,
                  absl::Duration timeout)
      : stub_(stub), id_(std::move(id)), ids_(std::move(ids)), timeout_(timeout) {}
  ~CaptureLifetime();
  CaptureLifetime(const CaptureLifetime&) = delete;
  CaptureLifetime& operator=(const CaptureLifetime&) = delete;

  // The 16 bytes of its id.
  const std::string& id() const { return id_; }

  // It will not be closed: FollowReadings may go on until its time to live.
  void Leave() { left_ = true; }

 private:
  internal::v1::CaptureControlService::StubInterface& stub_;
  const std::string id_;
  const CallIds ids_;
  const absl::Duration timeout_;
  bool left_ = false;
};

}  // namespace sextant
