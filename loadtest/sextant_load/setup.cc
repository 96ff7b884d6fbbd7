// What a run needs of the server before it starts.
#include "loadtest/sextant_load/setup.h"

#include <cstring>
#include <string>

#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "kernels/status_macros.h"
#include "loadtest/sextant_load/random.h"
#include "loadtest/sextant_load/schedule.h"
#include "sextant/v1/inference.grpc.pb.h"
#include "sextant/v1/vector.grpc.pb.h"

namespace sextant::load {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr absl::Duration kTryAgain = absl::Milliseconds(200);

// Small numbers, so that a steered model still says something.
std::string Direction(int32_t number, int32_t hidden_size) {
  Random random(static_cast<uint64_t>(number) + 1);
  std::string bytes(static_cast<size_t>(hidden_size) * sizeof(float), '\0');
  for (int32_t i = 0; i < hidden_size; ++i) {
    const auto value = static_cast<float>((random.Unit() - 0.5) * 0.02);
    std::memcpy(bytes.data() + i * sizeof(float), &value, sizeof(float));
  }
  return bytes;
}

absl::Status StoreVector(v1::VectorService::Stub& stub, int32_t number, const v1::Model& model) {
  v1::CreateVectorRequest request;
  v1::Vector& vector = *request.mutable_vector();
  vector.set_name(VectorName(number));
  vector.set_site(v1::SITE_RESID_POST);
  vector.add_layers(model.layer_count() / 2);
  vector.set_hidden_size(model.hidden_size());
  vector.set_model_layer_count(model.layer_count());
  vector.set_model(model.name());
  vector.set_model_sha256(model.weights_sha256());
  vector.set_description("made by sextant_load");
  request.set_data(Direction(number, model.hidden_size()));
  grpc::ClientContext context;
  SetTimeout(context, kCallTimeout);
  v1::Vector stored;
  const auto writer = stub.CreateVector(&context, &stored);
  // A refused write says nothing; the status below does.
  (void)writer->Write(request);
  (void)writer->WritesDone();
  return FromGrpcStatus(writer->Finish());
}

}  // namespace

absl::StatusOr<v1::Model> FetchModel(const std::shared_ptr<grpc::Channel>& channel, absl::Duration patience) {
  const auto stub = v1::InferenceService::NewStub(channel);
  const absl::Time give_up = absl::Now() + patience;
  while (true) {
    grpc::ClientContext context;
    SetTimeout(context, kCallTimeout);
    v1::GetModelResponse response;
    const absl::Status status = FromGrpcStatus(stub->GetModel(&context, {}, &response));
    if (status.ok()) return response.model();
    if (!absl::IsUnavailable(status) || absl::Now() >= give_up) return status;
    absl::SleepFor(kTryAgain);
  }
}

absl::Status StoreVectors(const std::shared_ptr<grpc::Channel>& channel, int32_t count,
                          const v1::Model& model) {
  const auto stub = v1::VectorService::NewStub(channel);
  for (int32_t number = 0; number < count; ++number) {
    SEXTANT_RETURN_IF_ERROR(StoreVector(*stub, number, model));
  }
  return absl::OkStatus();
}

}  // namespace sextant::load
