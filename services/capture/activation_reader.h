// Reads slices of a kept capture's rows from its spool.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "services/capture/capture_core.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant {

// Gives the selected rows site by site and layer by layer, each in runs of positions of at most 1 MiB. Holds
// the capture's files: they stay while it lives, even when the capture is deleted. Threads: one at a time.
class ActivationReader {
 public:
  explicit ActivationReader(CaptureCore::ReadSelection selection) : selection_(std::move(selection)) {}

  // The next slice; nullopt after the last. DATA_LOSS CAPTURE_SPOOL_CORRUPT.
  absl::StatusOr<std::optional<internal::v1::ReadActivationsResponse>> Next();

 private:
  const CaptureCore::ReadSelection selection_;
  std::shared_ptr<const OwnedFd> open_rows_;
  size_t row_ = 0;
  size_t position_ = 0;
};

}  // namespace sextant
