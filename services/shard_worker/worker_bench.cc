// Measures a running worker: tokens per second without and with capture, interleaved, and that both give the
// same tokens.
//
//   capture --data_dir=/tmp/c & shard_worker --model=... --ranks=2 & worker_bench --capture=127.0.0.1:7720
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/time/clock.h"
#include "common/activation/row_layout.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "kernels/status_macros.h"
#include "sextant/internal/v1/capture.grpc.pb.h"
#include "sextant/internal/v1/worker.grpc.pb.h"

ABSL_FLAG(std::string, worker, "127.0.0.1:7710", "Address of the worker.");
ABSL_FLAG(std::string, capture, "", "Address of a capture service; empty: plain runs only.");
ABSL_FLAG(int, prompt_tokens, 32, "Length of the prompt.");
ABSL_FLAG(int, new_tokens, 128, "Tokens to generate.");
ABSL_FLAG(int, rounds, 5, "Rounds; in each a plain and a captured run.");
ABSL_FLAG(int, sites, 3, "Sites captured over all layers: resid_post, attn_out, mlp_out, ...");
ABSL_FLAG(bool, kept, true, "Keep the capture (spooled to disk); otherwise its rows are for a lens.");

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

struct Run {
  double prefill_seconds = 0;
  double decode_seconds = 0;
  double total_seconds = 0;
  std::vector<int32_t> tokens;
  // Of tokens and log-probabilities, so that a fast wrong answer shows.
  uint32_t digest = 0;
  int64_t captured_bytes = 0;
};

class Bench {
 public:
  Bench()
      : worker_(pb::WorkerService::NewStub(MakeChannel(absl::GetFlag(FLAGS_worker)))),
        capture_(pb::CaptureControlService::NewStub(MakeChannel(absl::GetFlag(FLAGS_capture)))) {}

  absl::Status Start() {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(5));
    SEXTANT_RETURN_IF_ERROR(FromGrpcStatus(worker_->GetEngine(&context, {}, &engine_)));
    std::printf("%s: %d ranks, %d layers, hidden %d\n", engine_.engine().c_str(),
                engine_.model().tensor_parallel_size(), engine_.model().layer_count(),
                engine_.model().hidden_size());
    return absl::OkStatus();
  }

  absl::StatusOr<Run> Generate(bool captured) {
    pb::GenerateRequest request;
    for (int i = 0; i < absl::GetFlag(FLAGS_prompt_tokens); ++i) {
      request.add_prompt_token_ids((i * 7919 + 31) % engine_.model().vocab_size());
    }
    request.set_max_new_tokens(absl::GetFlag(FLAGS_new_tokens));
    if (captured) SEXTANT_RETURN_IF_ERROR(Open(request));
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(300));
    const absl::Time start = absl::Now();
    const auto stream = worker_->Generate(&context, request);
    Run run;
    pb::GenerateResponse response;
    while (stream->Read(&response)) {
      if (response.has_token()) {
        const float logprob = response.token().logprob();
        run.tokens.push_back(response.token().id());
        run.digest = crc32_z(run.digest, reinterpret_cast<const Bytef*>(&run.tokens.back()), sizeof(int32_t));
        run.digest = crc32_z(run.digest, reinterpret_cast<const Bytef*>(&logprob), sizeof logprob);
      }
      if (!response.has_finished()) continue;
      run.prefill_seconds = response.finished().prefill_ns() * 1e-9;
      run.decode_seconds = response.finished().decode_ns() * 1e-9;
      run.captured_bytes = response.finished().captured_bytes();
    }
    SEXTANT_RETURN_IF_ERROR(FromGrpcStatus(stream->Finish()));
    run.total_seconds = absl::ToDoubleSeconds(absl::Now() - start);
    if (captured) Close(request.capture());
    return run;
  }

 private:
  absl::Status Open(pb::GenerateRequest& request) {
    std::string id(16, '\0');
    for (char& c : id) c = static_cast<char>(random_());
    static constexpr sextant::v1::Site kSites[] = {sextant::v1::SITE_RESID_POST, sextant::v1::SITE_ATTN_OUT,
                                                   sextant::v1::SITE_MLP_OUT,    sextant::v1::SITE_RESID_PRE,
                                                   sextant::v1::SITE_RESID_MID,  sextant::v1::SITE_ATTN_IN,
                                                   sextant::v1::SITE_MLP_IN};
    request.set_capture(id);
    request.set_capture_address(absl::GetFlag(FLAGS_capture));
    pb::CaptureSpec& spec = *request.mutable_spec();
    for (int site = 0; site < absl::GetFlag(FLAGS_sites); ++site) {
      for (int layer = 0; layer < engine_.model().layer_count(); ++layer) {
        spec.add_rows()->set_site(kSites[site]);
        spec.mutable_rows()->rbegin()->set_layer(layer);
      }
    }
    spec.set_dtype(engine_.row_dtype());
    spec.set_hidden_size(engine_.model().hidden_size());
    request.set_position_bytes(PositionBytes(spec));
    pb::OpenCaptureRequest open;
    open.set_capture(id);
    open.set_engine(engine_.engine());
    open.set_kind(absl::GetFlag(FLAGS_kept) ? pb::CAPTURE_KIND_KEPT : pb::CAPTURE_KIND_TRANSIENT);
    *open.mutable_spec() = spec;
    open.set_position_bytes(request.position_bytes());
    open.set_max_positions(request.prompt_token_ids_size() + request.max_new_tokens());
    open.set_ttl_seconds(1);
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(5));
    pb::OpenCaptureResponse response;
    return FromGrpcStatus(capture_->OpenCapture(&context, open, &response));
  }

  void Close(const std::string& id) {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(5));
    pb::CloseCaptureRequest request;
    request.set_capture(id);
    pb::CloseCaptureResponse response;
    capture_->CloseCapture(&context, request, &response);
  }

  const std::unique_ptr<pb::WorkerService::Stub> worker_;
  const std::unique_ptr<pb::CaptureControlService::Stub> capture_;
  pb::GetEngineResponse engine_;
  std::random_device random_;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

absl::Status RunBench() {
  Bench bench;
  SEXTANT_RETURN_IF_ERROR(bench.Start());
  const int decoded = absl::GetFlag(FLAGS_new_tokens) - 1;
  std::vector<double> plain_rates, captured_rates, ratios;
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const Run plain, bench.Generate(false));
    plain_rates.push_back(decoded / plain.decode_seconds);
    std::printf("plain     prefill %7.1f ms  decode %7.1f tok/s  digest %08x\n", plain.prefill_seconds * 1e3,
                plain_rates.back(), plain.digest);
    if (absl::GetFlag(FLAGS_capture).empty()) continue;
    SEXTANT_ASSIGN_OR_RETURN(const Run captured, bench.Generate(true));
    captured_rates.push_back(decoded / captured.decode_seconds);
    ratios.push_back(captured_rates.back() / plain_rates.back());
    std::printf(
        "captured  prefill %7.1f ms  decode %7.1f tok/s  ratio %.3f  %.1f MB  sealed after %.1f ms  %s\n",
        captured.prefill_seconds * 1e3, captured_rates.back(), ratios.back(), captured.captured_bytes * 1e-6,
        (captured.total_seconds - captured.decode_seconds - captured.prefill_seconds) * 1e3,
        captured.digest == plain.digest ? "same digest" : "DIGEST DIFFERS");
  }
  std::printf("median plain %.1f tok/s", Median(plain_rates));
  if (!ratios.empty())
    std::printf(", captured %.1f tok/s, ratio %.3f", Median(captured_rates), Median(ratios));
  std::printf("\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = sextant::RunBench();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
