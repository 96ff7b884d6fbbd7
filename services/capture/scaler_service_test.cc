// The external scaler over a real server.
#include "services/capture/scaler_service.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "gtest/gtest.h"
#include "kernels/check.h"
#include "services/capture/errors.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {
namespace {

using externalscaler::ExternalScaler;
using externalscaler::GetMetricsRequest;
using externalscaler::GetMetricsResponse;
using externalscaler::IsActiveResponse;
using externalscaler::ScaledObjectRef;

class ScalerServiceTest : public ::testing::Test {
 protected:
  ScalerServiceTest() {
    auto server = RpcServer::Start({}, {{ExternalScaler::service_full_name(), &handler_}});
    SEXTANT_CHECK(server.ok());
    server_ = *std::move(server);
    stub_ = ExternalScaler::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", server_->port())));
    object_.set_name("decoders");
    object_.set_namespace_("sextant");
    (*object_.mutable_scalermetadata())["rowsPerDecoder"] = "4";
  }
  ~ScalerServiceTest() override {
    // Streams end before the handlers that they belong to.
    host_.CloseStreams(DrainingError());
    server_.reset();
  }

  // Three positions of a capture come in.
  void RecordThreePositions() {
    host_.With([&](CaptureCore& core) {
      SEXTANT_CHECK(core.Open(TestOpen(id_, internal::v1::CAPTURE_KIND_TRANSIENT, 10)).ok());
      const StreamId rank = *core.ConnectRank(TestHello(1, 0));
      SEXTANT_CHECK(core.OnRankMessage(rank, TestAttach(id_)).ok());
      SEXTANT_CHECK(core.OnRankMessage(rank, TestChunk(id_, 0, {0, 1, 2})).ok());
    });
  }
  std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    SetTimeout(*context, absl::Seconds(30));
    return context;
  }
  bool IsActive() {
    IsActiveResponse response;
    SEXTANT_CHECK(stub_->IsActive(Context().get(), object_, &response).ok());
    return response.result();
  }

  const CaptureId id_ = TestId(1);
  const int64_t rows_ =
      3 * TestOpen(id_, internal::v1::CAPTURE_KIND_TRANSIENT, 1).spec().lens().row_indices_size();
  const SystemClock clock_;
  CoreHost host_{std::make_unique<CaptureCore>(CaptureOptions(), &clock_, nullptr, "instance")};
  ScalerHandler handler_{host_};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<ExternalScaler::Stub> stub_;
  ScaledObjectRef object_;
};

TEST_F(ScalerServiceTest, ActivityIsPushedWhenItChangesAndNotBefore) {
  const auto context = Context();
  const auto stream = stub_->StreamIsActive(context.get(), object_);
  IsActiveResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_FALSE(response.result());
  EXPECT_FALSE(IsActive());
  RecordThreePositions();
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(response.result());
  EXPECT_TRUE(IsActive());
  host_.With([&](CaptureCore& core) { core.Close(id_); });
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_FALSE(response.result());
  EXPECT_FALSE(IsActive());
  host_.CloseStreams(DrainingError());
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stream->Finish())), "DRAINING");
}

TEST_F(ScalerServiceTest, AnotherEnginesRowsAreNotPushed) {
  (*object_.mutable_scalermetadata())["engine"] = "another";
  const auto context = Context();
  const auto stream = stub_->StreamIsActive(context.get(), object_);
  IsActiveResponse response;
  ASSERT_TRUE(stream->Read(&response));
  RecordThreePositions();
  EXPECT_FALSE(IsActive());
  host_.CloseStreams(DrainingError());
  EXPECT_FALSE(stream->Read(&response)) << "nothing came before the end";
  stream->Finish();
}

TEST_F(ScalerServiceTest, SpecsAndValuesAgree) {
  RecordThreePositions();
  externalscaler::GetMetricSpecResponse specs;
  ASSERT_TRUE(stub_->GetMetricSpec(Context().get(), object_, &specs).ok());
  ASSERT_EQ(specs.metricspecs_size(), 2);
  EXPECT_EQ(specs.metricspecs(0).metricname(), "sextant-lens-rows");
  EXPECT_EQ(specs.metricspecs(0).targetsize(), 4);
  EXPECT_EQ(specs.metricspecs(0).targetsizefloat(), 4.0);
  EXPECT_EQ(specs.metricspecs(1).metricname(), "sextant-lens-age");
  EXPECT_EQ(specs.metricspecs(1).targetsizefloat(), 30.0);
  for (const auto& spec : specs.metricspecs()) {
    GetMetricsRequest request;
    *request.mutable_scaledobjectref() = object_;
    request.set_metricname(spec.metricname());
    GetMetricsResponse values;
    ASSERT_TRUE(stub_->GetMetrics(Context().get(), request, &values).ok());
    ASSERT_EQ(values.metricvalues_size(), 1);
    EXPECT_EQ(values.metricvalues(0).metricname(), spec.metricname());
    if (spec.metricname() == "sextant-lens-rows") {
      EXPECT_EQ(values.metricvalues(0).metricvalue(), rows_);
      EXPECT_EQ(values.metricvalues(0).metricvaluefloat(), static_cast<double>(rows_));
    }
  }
}

TEST_F(ScalerServiceTest, MistakesAreTypedErrorsOnEveryCall) {
  GetMetricsRequest request;
  *request.mutable_scaledobjectref() = object_;
  request.set_metricname("cpu");
  GetMetricsResponse values;
  const absl::Status unknown = FromGrpcStatus(stub_->GetMetrics(Context().get(), request, &values));
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReason(unknown), "SCALER_METRIC");

  (*object_.mutable_scalermetadata())["rowsPerDecoder"] = "none";
  *request.mutable_scaledobjectref() = object_;
  IsActiveResponse active;
  externalscaler::GetMetricSpecResponse specs;
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stub_->IsActive(Context().get(), object_, &active))),
            "SCALER_METADATA");
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stub_->GetMetricSpec(Context().get(), object_, &specs))),
            "SCALER_METADATA");
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stub_->GetMetrics(Context().get(), request, &values))),
            "SCALER_METADATA");
  const auto context = Context();
  const auto stream = stub_->StreamIsActive(context.get(), object_);
  EXPECT_FALSE(stream->Read(&active));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stream->Finish())), "SCALER_METADATA");
}

}  // namespace
}  // namespace sextant::testing
