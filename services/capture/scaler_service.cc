// The capture service as KEDA's external scaler.
#include "services/capture/scaler_service.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/rpc/status.h"
#include "kernels/status_macros.h"
#include "services/capture/errors.h"
#include "services/capture/scaling.h"

namespace sextant {
namespace {

using externalscaler::GetMetricSpecResponse;
using externalscaler::GetMetricsRequest;
using externalscaler::GetMetricsResponse;
using externalscaler::IsActiveResponse;
using externalscaler::ScaledObjectRef;

// Refusals that are remembered; beyond that all are forgotten, and logged again.
constexpr size_t kMaxLogged = 256;

absl::StatusOr<ScalingTarget> TargetOf(const ScaledObjectRef& object) {
  return ParseScalingTarget({object.scalermetadata().begin(), object.scalermetadata().end()});
}

// One StreamIsActive call. Deletes itself when the call has ended. All state is guarded by the host's lock.
class ActivityStream final : public grpc::ServerWriteReactor<IsActiveResponse>, public StreamSink {
 public:
  explicit ActivityStream(CoreHost& host) : host_(host) {}

  void Start(const absl::StatusOr<ScalingTarget>& target) {
    host_.With([&](CaptureCore& core) {
      if (!target.ok()) return End(core, target.status());
      engine_ = target->engine;
      id_ = core.WatchBacklog();
      host_.Register(id_, this);
    });
  }

  // What changed and changed back while a message was under way is not told: nothing is left to do about it.
  void OnReady(CaptureCore& core) override {
    if (writing_ || ended_) return;
    const bool active = core.HasBacklog(engine_);
    if (told_ == active) return;
    told_ = active;
    out_.set_result(active);
    writing_ = true;
    StartWrite(&out_);
  }

  void OnWriteDone(bool ok) override {
    host_.With([&](CaptureCore& core) {
      writing_ = false;
      if (ended_) {
        Finish(final_status_);
      } else if (!ok) {
        End(core, absl::CancelledError("the autoscaler is gone"));
      } else {
        OnReady(core);
      }
    });
  }

  void OnClosed(CaptureCore& core, const absl::Status& status) override { End(core, status); }
  void OnCancel() override {
    host_.With([&](CaptureCore& core) { End(core, absl::CancelledError("the autoscaler is gone")); });
  }
  void OnDone() override { delete this; }

 private:
  void End(CaptureCore& core, const absl::Status& status) {
    if (std::exchange(ended_, true)) return;
    if (id_ != 0) {
      host_.Unregister(id_);
      core.UnwatchBacklog(id_);
    }
    final_status_ = ToGrpcStatus(status);
    if (!writing_) Finish(final_status_);
  }

  CoreHost& host_;
  std::string engine_;
  StreamId id_ = 0;
  IsActiveResponse out_;
  // What the autoscaler knows.
  std::optional<bool> told_;
  bool writing_ = false;
  bool ended_ = false;
  grpc::Status final_status_;
};

absl::Status FillSpec(const ScaledObjectRef& object, GetMetricSpecResponse* response) {
  SEXTANT_ASSIGN_OR_RETURN(const ScalingTarget target, TargetOf(object));
  for (const ScalingMetric& metric : ScalingMetrics(target, Backlog())) {
    auto* spec = response->add_metricspecs();
    spec->set_metricname(metric.name);
    spec->set_targetsize(std::max<int64_t>(1, std::llround(metric.target)));
    spec->set_targetsizefloat(metric.target);
  }
  return absl::OkStatus();
}

absl::Status FillMetrics(CoreHost& host, const GetMetricsRequest& request, GetMetricsResponse* response) {
  SEXTANT_ASSIGN_OR_RETURN(const ScalingTarget target, TargetOf(request.scaledobjectref()));
  const Backlog backlog =
      host.With([&target](CaptureCore& core) { return core.MeasureBacklog(target.engine); });
  for (const ScalingMetric& metric : ScalingMetrics(target, backlog)) {
    if (!request.metricname().empty() && request.metricname() != metric.name) continue;
    auto* value = response->add_metricvalues();
    value->set_metricname(metric.name);
    // Rounded up: whoever reads this one sees that something is left.
    value->set_metricvalue(static_cast<int64_t>(std::ceil(metric.value)));
    value->set_metricvaluefloat(metric.value);
  }
  return response->metricvalues().empty() ? ScalerMetricError(request.metricname()) : absl::OkStatus();
}

}  // namespace

void ScalerHandler::LogRefusal(const ScaledObjectRef& object, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (logged_.size() >= kMaxLogged) logged_.clear();
  if (!logged_.emplace(object.namespace_(), object.name(), status.ToString()).second) return;
  LogWarning("an autoscaler is refused",
             {{"namespace", object.namespace_()}, {"name", object.name()}, {"status", status}});
}

grpc::ServerUnaryReactor* ScalerHandler::Answer(grpc::CallbackServerContext* context,
                                                const ScaledObjectRef& object, const absl::Status& status) {
  if (!status.ok()) LogRefusal(object, status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* ScalerHandler::IsActive(grpc::CallbackServerContext* context,
                                                  const ScaledObjectRef* request,
                                                  IsActiveResponse* response) {
  const absl::StatusOr<ScalingTarget> target = TargetOf(*request);
  if (!target.ok()) return Answer(context, *request, target.status());
  response->set_result(host_.With([&](CaptureCore& core) { return core.HasBacklog(target->engine); }));
  return Answer(context, *request, absl::OkStatus());
}

grpc::ServerWriteReactor<IsActiveResponse>* ScalerHandler::StreamIsActive(grpc::CallbackServerContext*,
                                                                          const ScaledObjectRef* request) {
  const absl::StatusOr<ScalingTarget> target = TargetOf(*request);
  if (target.ok()) {
    LogInfo("autoscaler connected", {{"namespace", request->namespace_()}, {"name", request->name()}});
  } else {
    LogRefusal(*request, target.status());
  }
  auto* stream = new ActivityStream(host_);
  stream->Start(target);
  return stream;
}

grpc::ServerUnaryReactor* ScalerHandler::GetMetricSpec(grpc::CallbackServerContext* context,
                                                       const ScaledObjectRef* request,
                                                       GetMetricSpecResponse* response) {
  return Answer(context, *request, FillSpec(*request, response));
}

grpc::ServerUnaryReactor* ScalerHandler::GetMetrics(grpc::CallbackServerContext* context,
                                                    const GetMetricsRequest* request,
                                                    GetMetricsResponse* response) {
  return Answer(context, request->scaledobjectref(), FillMetrics(host_, *request, response));
}

}  // namespace sextant
