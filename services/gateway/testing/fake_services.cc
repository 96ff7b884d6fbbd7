// Scripted stand-ins for the worker, the capture service and the registry, on real sockets.
#include "services/gateway/testing/fake_services.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/rpc/status.h"
#include "common/tokenizer/byte_alphabet.h"

namespace sextant::testing {
namespace {

std::unique_ptr<RpcServer> Serve(const char* name, grpc::Service& service) {
  auto server = RpcServer::Start({}, {{name, &service}});
  SEXTANT_CHECK(server.ok());
  return *std::move(server);
}

std::string AddressOf(const RpcServer& server) { return absl::StrCat("127.0.0.1:", server.port()); }

}  // namespace

FakeWorker::FakeWorker(std::string model_path)
    : model_path_(std::move(model_path)),
      server_(Serve(internal::v1::WorkerService::service_full_name(), *this)) {}

void FakeWorker::SetScript(Script script) {
  absl::MutexLock lock(&mutex_);
  script_ = std::move(script);
}

std::string FakeWorker::address() const { return AddressOf(*server_); }

int FakeWorker::calls() const {
  absl::MutexLock lock(&mutex_);
  return calls_;
}

CallIds FakeWorker::last_call() const {
  absl::MutexLock lock(&mutex_);
  return last_call_;
}

grpc::Status FakeWorker::GetEngine(grpc::ServerContext*, const internal::v1::GetEngineRequest*,
                                   internal::v1::GetEngineResponse* response) {
  *response = SmallEngine();
  response->set_model_path(model_path_);
  return grpc::Status::OK;
}

grpc::Status FakeWorker::Generate(grpc::ServerContext* context, const internal::v1::GenerateRequest* request,
                                  Writer* writer) {
  Script script;
  {
    absl::MutexLock lock(&mutex_);
    ++calls_;
    last_call_ = CallIdsOf(*context);
    script = script_;
  }
  return script(*context, *request, *writer);
}

void FakeWorker::WriteToken(Writer& writer, int32_t index, int32_t id) {
  internal::v1::GenerateResponse event;
  event.mutable_token()->set_index(index);
  event.mutable_token()->set_id(id);
  event.mutable_token()->set_logprob(-0.5f);
  writer.Write(event);
}

void FakeWorker::WriteFinished(Writer& writer, int32_t lens_positions, std::vector<int64_t> touched) {
  internal::v1::GenerateResponse event;
  event.mutable_finished()->set_reason(v1::FINISH_REASON_LENGTH);
  event.mutable_finished()->set_recorded_position_count(lens_positions);
  event.mutable_finished()->set_lens_position_count(lens_positions);
  event.mutable_finished()->mutable_touched_row_counts()->Assign(touched.begin(), touched.end());
  writer.Write(event);
}

bool FakeWorker::AwaitCancelled(const grpc::ServerContext& context) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!context.IsCancelled() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(2));
  return context.IsCancelled();
}

FakeCapture::FakeCapture()
    : server_(Serve(internal::v1::CaptureControlService::service_full_name(), *this)) {}

void FakeCapture::SetScript(Script script) {
  absl::MutexLock lock(&mutex_);
  script_ = std::move(script);
}

void FakeCapture::SetOpenStatus(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  open_status_ = status;
}

std::string FakeCapture::address() const { return AddressOf(*server_); }

std::vector<internal::v1::OpenCaptureRequest> FakeCapture::opened() const {
  absl::MutexLock lock(&mutex_);
  return opened_;
}

bool FakeCapture::AwaitClosed(size_t count) const {
  absl::MutexLock lock(&mutex_);
  const auto closed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_.size() >= count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&closed), kPatience);
}

size_t FakeCapture::closed_count() const {
  absl::MutexLock lock(&mutex_);
  return closed_.size();
}

grpc::Status FakeCapture::OpenCapture(grpc::ServerContext*, const internal::v1::OpenCaptureRequest* request,
                                      internal::v1::OpenCaptureResponse*) {
  absl::MutexLock lock(&mutex_);
  if (!open_status_.ok()) return ToGrpcStatus(open_status_);
  opened_.push_back(*request);
  return grpc::Status::OK;
}

grpc::Status FakeCapture::CloseCapture(grpc::ServerContext*, const internal::v1::CloseCaptureRequest* request,
                                       internal::v1::CloseCaptureResponse*) {
  absl::MutexLock lock(&mutex_);
  closed_.push_back(request->capture());
  return grpc::Status::OK;
}

grpc::Status FakeCapture::FollowReadings(grpc::ServerContext* context,
                                         const internal::v1::FollowReadingsRequest* request, Writer* writer) {
  Script script;
  internal::v1::CaptureSpec spec;
  {
    absl::MutexLock lock(&mutex_);
    script = script_;
    if (!opened_.empty()) spec = opened_.back().spec();
  }
  return script(*context, spec, *request, *writer);
}

grpc::Status FakeCapture::GetCapture(grpc::ServerContext*, const internal::v1::GetCaptureRequest* request,
                                     v1::Capture* response) {
  response->set_name(absl::StrCat("bytes:", request->capture().size()));
  return grpc::Status::OK;
}

grpc::Status FakeCapture::GetStatus(grpc::ServerContext*, const internal::v1::GetStatusRequest*,
                                    internal::v1::GetStatusResponse* response) {
  absl::MutexLock lock(&mutex_);
  response->set_decoder_count(decoder_count_);
  return grpc::Status::OK;
}

void FakeCapture::SetDecoderCount(int count) {
  absl::MutexLock lock(&mutex_);
  decoder_count_ = count;
}

void FakeCapture::WriteReadings(Writer& writer, const internal::v1::CaptureSpec& spec, int64_t first_index,
                                const std::vector<int32_t>& positions) {
  internal::v1::FollowReadingsResponse message;
  message.set_first_index(first_index);
  *message.mutable_readings() = SmallReadings(spec, positions);
  writer.Write(message);
}

void FakeCapture::WriteEnd(Writer& writer, int64_t count, int64_t failed) {
  internal::v1::FollowReadingsResponse message;
  message.set_first_index(count);
  message.mutable_end()->set_reading_count(count);
  message.mutable_end()->set_failed_count(failed);
  writer.Write(message);
}

FakeRegistry::FakeRegistry() : server_(Serve(internal::v1::RegistryService::service_full_name(), *this)) {}

std::string FakeRegistry::address() const { return AddressOf(*server_); }

int FakeRegistry::reads() const {
  absl::MutexLock lock(&mutex_);
  return reads_;
}

int64_t FakeRegistry::received_bytes() const {
  absl::MutexLock lock(&mutex_);
  return received_bytes_;
}

grpc::Status FakeRegistry::CreateVector(grpc::ServerContext*,
                                        grpc::ServerReader<v1::CreateVectorRequest>* reader,
                                        v1::Vector* response) {
  v1::CreateVectorRequest message;
  while (reader->Read(&message)) {
    if (message.has_vector()) *response = message.vector();
    absl::MutexLock lock(&mutex_);
    received_bytes_ += static_cast<int64_t>(message.data().size());
  }
  response->set_version(1);
  return grpc::Status::OK;
}

grpc::Status FakeRegistry::GetVector(grpc::ServerContext*, const v1::GetVectorRequest* request,
                                     v1::Vector* response) {
  if (request->reference() != "happy" && request->reference() != "happy@1") {
    return ToGrpcStatus(
        MakeError(absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND", "there is no such vector"));
  }
  response->set_name("happy");
  response->set_version(1);
  response->set_site(v1::SITE_RESID_PRE);
  response->add_layers(1);
  response->set_hidden_size(kHidden);
  response->set_model_layer_count(kLayers);
  response->set_sha256(std::string(64, 'd'));
  return grpc::Status::OK;
}

grpc::Status FakeRegistry::ReadVector(grpc::ServerContext* context, const v1::ReadVectorRequest* request,
                                      grpc::ServerWriter<v1::ReadVectorResponse>* writer) {
  {
    absl::MutexLock lock(&mutex_);
    ++reads_;
  }
  v1::GetVectorRequest get;
  get.set_reference(request->reference());
  v1::ReadVectorResponse part;
  const grpc::Status status = GetVector(context, &get, part.mutable_vector());
  if (!status.ok()) return status;
  const std::vector<float> values(kHidden, 0.5f);
  part.set_data(std::string(reinterpret_cast<const char*>(values.data()), kHidden * sizeof(float)));
  writer->Write(part);
  return grpc::Status::OK;
}

std::string WriteTokenizerFolder() {
  using Json = nlohmann::json;
  const TokenizerSpec spec = SmallTokenizerSpec();
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[SpellBytes(spec.token_bytes[static_cast<size_t>(byte)])] = byte;
  Json added = Json::array();
  for (const AddedToken& token : spec.added_tokens) {
    added.push_back({{"id", token.id}, {"content", token.content}, {"special", token.special}});
  }
  const Json file = {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}},
                     {"added_tokens", added},
                     {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
                     {"decoder", {{"type", "ByteLevel"}}}};
  const std::string folder = absl::StrCat(::testing::TempDir(), "/tokenizer_", getpid());
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/tokenizer.json") << file.dump();
  std::ofstream(folder + "/tokenizer_config.json") << Json{{"chat_template", spec.chat_template}}.dump();
  return folder;
}

}  // namespace sextant::testing
