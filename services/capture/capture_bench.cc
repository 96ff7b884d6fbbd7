// How fast rows go through the capture service over loopback: one rank, one decoder that answers at once, one
// process.
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/activation/readings.h"
#include "common/activation/row_layout.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "kernels/check.h"
#include "services/capture/control_service.h"
#include "services/capture/readings_log.h"
#include "services/capture/stream_services.h"

namespace sextant {
namespace {

using namespace internal::v1;  // NOLINT: every message of the protocol is used

// A 30-layer model of width 576, three sites: 91 rows of bf16, 105 KB a position.
constexpr int kLayers = 30;
constexpr int kHidden = 576;
constexpr int kPositions = 4000;
constexpr int kPositionsPerChunk = 5;
constexpr int64_t kRingBytes = 32 << 20;

OpenCaptureRequest MakeOpen(CaptureKind kind, bool lens) {
  OpenCaptureRequest request;
  request.set_capture(std::string(CaptureId::kBytes, lens ? 'l' : 'k'));
  request.set_engine("bench");
  request.set_kind(kind);
  CaptureSpec& spec = *request.mutable_spec();
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const auto site : {v1::SITE_RESID_POST, v1::SITE_ATTN_OUT, v1::SITE_MLP_OUT}) {
      spec.add_rows()->set_site(site);
      spec.mutable_rows(spec.rows_size() - 1)->set_layer(layer);
      if (lens) spec.mutable_lens()->add_row_indices(spec.rows_size() - 1);
    }
  }
  spec.set_dtype(v1::DTYPE_BF16);
  spec.set_hidden_size(kHidden);
  if (lens) {
    spec.mutable_lens()->set_final_row_index(spec.rows_size() - 3);
    spec.mutable_lens()->set_top_k(5);
    spec.mutable_lens()->set_lens_digest(std::string(32, 'd'));
  }
  request.set_position_bytes(PositionBytes(spec));
  request.set_max_positions(kPositions);
  request.set_ttl_seconds(600);
  return request;
}

// What the service has said to the rank.
struct Answers {
  absl::Mutex mutex;
  int64_t granted = 0;
  int64_t acked_chunks = 0;
  bool sealed = false;
};

// Sends all positions as credit and a ring allow; returns when the capture is sealed.
void RunRank(RankStreamService::Stub& stub, const OpenCaptureRequest& open) {
  grpc::ClientContext context;
  const auto stream = stub.Connect(&context);
  Answers answers;
  std::thread reader([&] {
    RankReply reply;
    while (stream->Read(&reply)) {
      absl::MutexLock lock(&answers.mutex);
      if (reply.has_credit()) answers.granted = reply.credit().granted_total_bytes();
      if (reply.has_ack()) answers.acked_chunks = reply.ack().next_seq();
      answers.sealed |= reply.has_sealed();
    }
  });
  RankMessage message;
  message.mutable_hello()->set_engine(open.engine());
  message.mutable_hello()->set_epoch(1);
  SEXTANT_CHECK(stream->Write(message));
  message.mutable_attach()->set_capture(open.capture());
  message.mutable_attach()->set_position_bytes(open.position_bytes());
  SEXTANT_CHECK(stream->Write(message));
  const std::string data(open.position_bytes() * kPositionsPerChunk, 'x');
  const uint32_t crc = crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size());
  for (int64_t chunk = 0; chunk < kPositions / kPositionsPerChunk; ++chunk) {
    const auto may_send = [&]() {
      return answers.granted >= (chunk + 1) * static_cast<int64_t>(data.size()) &&
             (chunk - answers.acked_chunks) * static_cast<int64_t>(data.size()) < kRingBytes;
    };
    {
      absl::MutexLock lock(&answers.mutex);
      answers.mutex.Await(absl::Condition(&may_send));
    }
    Chunk& out = *message.mutable_chunk();
    out.Clear();
    out.set_capture(open.capture());
    out.set_seq(chunk);
    for (int i = 0; i < kPositionsPerChunk; ++i) {
      out.add_positions(static_cast<int32_t>(chunk * kPositionsPerChunk + i));
      out.add_target_ids(1);
      out.add_lens(open.spec().has_lens());
    }
    out.set_crc32(crc);
    out.set_data(data);
    SEXTANT_CHECK(stream->Write(message));
  }
  message.mutable_seal()->set_capture(open.capture());
  message.mutable_seal()->set_position_count(kPositions);
  message.mutable_seal()->set_lens_position_count(open.spec().has_lens() ? kPositions : 0);
  SEXTANT_CHECK(stream->Write(message));
  {
    absl::MutexLock lock(&answers.mutex);
    answers.mutex.Await(absl::Condition(&answers.sealed));
  }
  context.TryCancel();
  reader.join();
}

// Answers every lease at once; returns when `positions` are answered.
void RunDecoder(LensStreamService::Stub& stub, const CaptureSpec& spec, int positions) {
  grpc::ClientContext context;
  const auto stream = stub.Pull(&context);
  DecoderMessage message;
  message.mutable_hello()->add_lens_digests(std::string(32, 'd'));
  SEXTANT_CHECK(stream->Write(message));
  message.mutable_want()->set_bytes(32 << 20);
  SEXTANT_CHECK(stream->Write(message));
  DecoderReply reply;
  internal::v1::Lease lease;
  while (positions > 0 && stream->Read(&reply)) {
    if (reply.has_lease()) lease = reply.lease();
    if (!reply.has_data() || !reply.data().last()) continue;
    auto& result = *message.mutable_result();
    result.Clear();
    result.set_lease(lease.lease());
    result.set_capture(lease.capture());
    for (const int32_t position : lease.positions()) {
      AppendReadings(FailedReadings(spec, position, 1), *result.mutable_readings());
    }
    positions -= lease.positions_size();
    SEXTANT_CHECK(stream->Write(message));
  }
  context.TryCancel();
}

void Measure(const char* name, CaptureKind kind, bool lens) {
  const std::string folder = absl::StrCat("/tmp/sextant_capture_bench_", getpid());
  auto spool = Spool::Open(folder, int64_t{4} << 30);
  SEXTANT_CHECK(spool.ok());
  const SystemClock clock;
  CaptureOptions options;
  options.readings_budget_bytes = int64_t{4} << 30;
  CoreHost host(std::make_unique<CaptureCore>(options, &clock, *std::move(spool), "bench"));
  CaptureControlHandler control(host, absl::Minutes(1));
  RankStreamHandler ranks(host);
  LensStreamHandler lenses(host);
  auto server = RpcServer::Start({.max_receive_bytes = 16 << 20},
                                 {{CaptureControlService::service_full_name(), &control},
                                  {RankStreamService::service_full_name(), &ranks},
                                  {LensStreamService::service_full_name(), &lenses}});
  SEXTANT_CHECK(server.ok());
  const std::string address = absl::StrCat("127.0.0.1:", (*server)->port());
  const OpenCaptureRequest open = MakeOpen(kind, lens);
  SEXTANT_CHECK(host.With([&](CaptureCore& core) { return core.Open(open); }).ok());
  const auto rank_stub = RankStreamService::NewStub(MakeChannel(address, {.own_connection = true}));
  const auto lens_stub = LensStreamService::NewStub(MakeChannel(address, {.own_connection = true}));
  const absl::Time start = absl::Now();
  std::thread rank([&] { RunRank(*rank_stub, open); });
  if (lens) RunDecoder(*lens_stub, open.spec(), kPositions);
  rank.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const double bytes = static_cast<double>(open.position_bytes()) * kPositions;
  std::printf("%-28s %7.0f MB/s in, %9.0f rows/s, %.2f s\n", name, bytes / seconds / 1e6,
              kPositions * open.spec().rows_size() / seconds, seconds);
  server->reset();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sextant

int main() {
  sextant::InitLogging("capture_bench", sextant::LogFormat::kText, sextant::LogLevel::kError);
  sextant::Measure("transient, leased, decoded", sextant::internal::v1::CAPTURE_KIND_TRANSIENT, true);
  sextant::Measure("kept, to the spool", sextant::internal::v1::CAPTURE_KIND_KEPT, false);
  return 0;
}
