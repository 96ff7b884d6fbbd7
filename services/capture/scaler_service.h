// The capture service as KEDA's external scaler: it says whether lens decoders are needed, and how many.
#pragma once

#include <set>
#include <string>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "externalscaler/externalscaler.grpc.pb.h"
#include "services/capture/core_host.h"

namespace sextant {

// INVALID_ARGUMENT / SCALER_METADATA when the trigger's metadata is wrong, NOT_FOUND / SCALER_METRIC for a
// metric that GetMetricSpec does not name.
class ScalerHandler final : public externalscaler::ExternalScaler::CallbackService {
 public:
  explicit ScalerHandler(CoreHost& host) : host_(host) {}

  grpc::ServerUnaryReactor* IsActive(grpc::CallbackServerContext* context,
                                     const externalscaler::ScaledObjectRef* request,
                                     externalscaler::IsActiveResponse* response) override;
  // Says whether anything waits or is leased at once, and again whenever that changes.
  grpc::ServerWriteReactor<externalscaler::IsActiveResponse>* StreamIsActive(
      grpc::CallbackServerContext* context, const externalscaler::ScaledObjectRef* request) override;
  grpc::ServerUnaryReactor* GetMetricSpec(grpc::CallbackServerContext* context,
                                          const externalscaler::ScaledObjectRef* request,
                                          externalscaler::GetMetricSpecResponse* response) override;
  // All metrics when the request names none.
  grpc::ServerUnaryReactor* GetMetrics(grpc::CallbackServerContext* context,
                                       const externalscaler::GetMetricsRequest* request,
                                       externalscaler::GetMetricsResponse* response) override;

 private:
  // Ends a call about `object`.
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                   const externalscaler::ScaledObjectRef& object, const absl::Status& status);
  // Logs why `object` is refused, once: an autoscaler asks again every few seconds.
  void LogRefusal(const externalscaler::ScaledObjectRef& object, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mutex_);

  CoreHost& host_;
  absl::Mutex mutex_;
  // Namespace, name and status of the refusals that were logged.
  std::set<std::tuple<std::string, std::string, std::string>> logged_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant
