// Tests of the registry on the wire, with a real server on loopback.
#include "services/steering_registry/registry_service.h"

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/error.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "gtest/gtest.h"
#include "services/steering_registry/sqlite_vector_store.h"
#include "services/steering_registry/test_vectors.h"

namespace sextant {
namespace {

using internal::v1::RegistryService;

class RegistryServiceTest : public testing::Test {
 protected:
  void SetUp() override { Serve({}); }

  void Serve(const RegistryServiceOptions& options) {
    server_.reset();
    handler_ = std::make_unique<RegistryServiceHandler>(registry_, *store_, metrics_, options);
    auto started = RpcServer::Start({.max_receive_bytes = (1 << 20) + (256 << 10)},
                                    {{RegistryService::service_full_name(), handler_.get()}});
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    stub_ = RegistryService::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", server_->port())));
  }

  // Sends `vector` with the first of `parts`, then the others.
  absl::StatusOr<v1::Vector> Create(const v1::Vector& vector, const std::vector<std::string>& parts) {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(20));
    v1::Vector stored;
    auto writer = stub_->CreateVector(&context, &stored);
    v1::CreateVectorRequest message;
    *message.mutable_vector() = vector;
    for (const std::string& part : parts) {
      message.set_data(part);
      if (!writer->Write(message)) break;
      message.Clear();
    }
    writer->WritesDone();
    const absl::Status status = FromGrpcStatus(writer->Finish());
    if (!status.ok()) return status;
    return stored;
  }

  absl::StatusOr<StoredVector> Read(const std::string& reference, int* messages) {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(20));
    v1::ReadVectorRequest request;
    request.set_reference(reference);
    auto reader = stub_->ReadVector(&context, request);
    StoredVector stored;
    v1::ReadVectorResponse part;
    for (*messages = 0; reader->Read(&part); ++*messages) {
      EXPECT_EQ(part.has_vector(), *messages == 0);
      if (part.has_vector()) stored.vector = part.vector();
      stored.data += part.data();
    }
    const absl::Status status = FromGrpcStatus(reader->Finish());
    if (!status.ok()) return status;
    return stored;
  }

  const TempFolder folder_;
  std::unique_ptr<SqliteVectorStore> store_ = *SqliteVectorStore::Open(folder_.File("registry.db"));
  SystemClock clock_;
  Registry registry_{*store_, clock_};
  std::shared_ptr<prometheus::Registry> families_ = MakeMetricsRegistry("test");
  RegistryMetrics metrics_{*families_};
  std::unique_ptr<RegistryServiceHandler> handler_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<RegistryService::Stub> stub_;
};

TEST_F(RegistryServiceTest, BigVectorsTravelInParts) {
  v1::Vector vector = SomeVector("big", {0, 1, 2});
  vector.set_hidden_size(200'000);
  std::vector<float> values(600'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1009) - 500;
  const std::string data = Bytes(values);
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < data.size(); begin += 1 << 20) parts.push_back(data.substr(begin, 1 << 20));
  const auto stored = Create(vector, parts);
  ASSERT_TRUE(stored.ok()) << stored.status();
  int messages = 0;
  const auto read = Read("big@1", &messages);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(messages, 3);
  EXPECT_EQ(read->data, data);
  EXPECT_EQ(read->vector.sha256(), stored->sha256());
}

TEST_F(RegistryServiceTest, BadStreamsAreRefused) {
  const std::string data = SomeData(1);
  EXPECT_EQ(ErrorReason(Create(SomeVector("v"), {}).status()), "VECTOR_STREAM_INVALID");
  EXPECT_EQ(ErrorReason(Create(SomeVector("v"), {data, "x"}).status()), "VECTOR_SHAPE");
  EXPECT_EQ(ErrorReason(Create(SomeVector("v"), {data.substr(1)}).status()), "VECTOR_SHAPE");
  EXPECT_EQ(ErrorReason(Create(SomeVector("V"), {data}).status()), "VECTOR_NAME_INVALID");
  EXPECT_EQ(Create(SomeVector("v"), {std::string(2 << 20, 'x')}).status().code(),
            absl::StatusCode::kResourceExhausted);  // a message beyond the limit
  EXPECT_EQ(store_->Count()->version_count, 0);
}

TEST_F(RegistryServiceTest, GetListDelete) {
  ASSERT_TRUE(Create(SomeVector("happy"), {SomeData(1)}).ok());
  v1::Vector vector;
  v1::GetVectorRequest get;
  get.set_reference("happy");
  {
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->GetVector(&context, get, &vector).ok());
  }
  v1::ListVectorsResponse list;
  {
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->ListVectors(&context, v1::ListVectorsRequest(), &list).ok());
  }
  EXPECT_EQ(list.vectors_size(), 1);
  v1::DeleteVectorRequest remove;
  remove.set_reference("happy@1");
  v1::DeleteVectorResponse removed;
  {
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->DeleteVector(&context, remove, &removed).ok());
  }
  EXPECT_EQ(removed.deleted_count(), 1);
  grpc::ClientContext context;
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stub_->GetVector(&context, get, &vector))), "VECTOR_NOT_FOUND");
}

TEST_F(RegistryServiceTest, UploadsBeyondTheBudgetAreToldToRetry) {
  Serve({.max_upload_bytes = 15});
  const absl::Status status = Create(SomeVector("v"), {SomeData(1)}).status();
  EXPECT_EQ(ErrorReason(status), "UPLOADS_BUSY");
  EXPECT_TRUE(ErrorRetryAfter(status).has_value());
}

TEST_F(RegistryServiceTest, ASenderThatStopsIsCutOff) {
  Serve({.max_call_time = absl::Milliseconds(100)});
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(20));
  v1::Vector stored;
  auto writer = stub_->CreateVector(&context, &stored);
  v1::CreateVectorRequest message;
  *message.mutable_vector() = SomeVector("v");
  ASSERT_TRUE(writer->Write(message));
  const absl::Time start = absl::Now();
  const grpc::Status status = writer->Finish();
  EXPECT_FALSE(status.ok());
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

}  // namespace
}  // namespace sextant
