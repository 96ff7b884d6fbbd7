// The calls a load test makes, through gRPC's callback API: no thread waits for an answer.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "sextant/v1/capture.pb.h"
#include "sextant/v1/inference.pb.h"

namespace sextant::load {

// Cancels its call; may be kept and used longer than the call lasts.
using CancelCall = std::function<void()>;

// How a call ended; called once, from a thread of gRPC's, as the last thing.
using OnEnd = std::function<void(const absl::Status&)>;

// Each function starts one call and returns. `on_event` and `on_slice` are called from gRPC's threads, one at
// a time, before `on_end`.
CancelCall StartGenerate(const std::shared_ptr<grpc::Channel>& channel, v1::GenerateRequest request,
                         absl::Duration timeout, std::function<void(const v1::GenerateResponse&)> on_event,
                         OnEnd on_end);
CancelCall StartReadActivations(const std::shared_ptr<grpc::Channel>& channel,
                                v1::ReadActivationsRequest request, absl::Duration timeout,
                                std::function<void(const v1::ReadActivationsResponse&)> on_slice,
                                OnEnd on_end);
CancelCall StartDeleteCapture(const std::shared_ptr<grpc::Channel>& channel, const std::string& capture,
                              absl::Duration timeout, OnEnd on_end);

}  // namespace sextant::load
