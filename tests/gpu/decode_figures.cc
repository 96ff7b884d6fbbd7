// G4, G5 and G6: decoding beside a copy of memory, and decoding with capture or lens beside plain decoding.
#include "tests/gpu/decode_figures.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/backend.h"
#include "kernels/status_macros.h"
#include "tests/gpu/decode_loop.h"

namespace sextant {
namespace {

// BF16 rounds keys, values and matrix inputs of both; their sums differ in order, so some round apart.
constexpr double kTolerance = 0.02;

struct Difference {
  double error = 0, tolerance = kTolerance;
};

// Of one layer of the shape between `backend` and the CPU, over a few tokens from an empty context: what a
// whole model of the real shapes would take too long for.
absl::StatusOr<Difference> CompareWithCpu(Backend& backend, ModelSpec spec) {
  constexpr int32_t kBatch = 2, kSteps = 4;
  spec.layer_count = 1;
  const auto logits = [&](Backend& on) -> absl::StatusOr<std::vector<float>> {
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeLoop> loop,
                             DecodeLoop::Make(on, spec, kBatch, 0, kSteps));
    return loop->LogitsOfGivenTokens(kBatch);
  };
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> cpu, MakeCpuBackend({}));
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<float> got, logits(backend));
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<float> want, logits(*cpu));
  return Difference{LargestDifference(got.data(), want.data(), static_cast<int64_t>(want.size()))};
}

// Bytes read and written per second by a copy within the device.
absl::StatusOr<double> CopySpeed(Backend& backend, Stream& stream, const Buffer& from, const Buffer& to) {
  constexpr int kCopies = 8;
  SEXTANT_ASSIGN_OR_RETURN(const double seconds, SecondsOf([&] {
                             for (int i = 0; i < kCopies; ++i) {
                               backend.Copy(stream, to.data(), from.data(), to.bytes());
                             }
                             return backend.Synchronize(stream);
                           }));
  return 2.0 * kCopies * static_cast<double>(to.bytes()) / seconds;
}

// Tokens per second of every sequence together. The tokens must be `tokens`, or become them the first time.
absl::StatusOr<double> DecodeSpeed(DecodeLoop& loop, int32_t batch, const RowUse& use, int32_t steps,
                                   uint64_t& tokens) {
  uint64_t hash = 0;
  SEXTANT_ASSIGN_OR_RETURN(const double seconds, SecondsOf([&]() -> absl::Status {
                             SEXTANT_ASSIGN_OR_RETURN(hash, loop.Run(batch, use));
                             return absl::OkStatus();
                           }));
  if (tokens == 0) tokens = hash;
  if (tokens != hash) {
    return absl::InternalError(absl::StrCat("decoding ", batch, " sequences with ", use.sites,
                                            " sites gave other tokens than before"));
  }
  return batch * steps / seconds;
}

absl::StatusOr<Figure> MeasureBandwidth(Backend& backend, DecodeLoop& loop, const std::string& shape,
                                        const DecodeFigureOptions& options, const Difference& difference) {
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(const Buffer from, backend.Allocate(options.copy_bytes, MemoryKind::kDevice));
  SEXTANT_ASSIGN_OR_RETURN(const Buffer to, backend.Allocate(options.copy_bytes, MemoryKind::kDevice));
  backend.Zero(*stream, from.data(), from.bytes());
  Figure figure;
  figure.name = "G4";
  figure.what = absl::StrCat("decode / copy within the device, ", shape, ", 1 sequence");
  figure.unit = "GB/s";
  figure.target = 0.70;
  figure.proof.error = difference.error;
  figure.proof.tolerance = difference.tolerance;
  uint64_t tokens = 0;
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double copy, CopySpeed(backend, *stream, from, to));
    SEXTANT_ASSIGN_OR_RETURN(const double speed, DecodeSpeed(loop, 1, {}, options.steps, tokens));
    if (round == 0) continue;  // warms up, and records what is replayed
    figure.speeds.push_back(speed * loop.StepBytes(1) * 1e-9);
    figure.denominators.push_back(copy * 1e-9);
  }
  for (int i = 0; i < 2; ++i) {
    SEXTANT_ASSIGN_OR_RETURN(const uint64_t hash, loop.HashLogits(1, {}));
    figure.proof.hashes.push_back(hash);
  }
  return figure;
}

absl::Status CompareUse(DecodeLoop& loop, int32_t batch, const RowUse& use,
                        const DecodeFigureOptions& options, const Difference& difference, Figure& figure) {
  figure.proof.error = difference.error;
  figure.proof.tolerance = difference.tolerance;
  uint64_t tokens = 0;
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double plain, DecodeSpeed(loop, batch, {}, options.steps, tokens));
    SEXTANT_ASSIGN_OR_RETURN(const double used, DecodeSpeed(loop, batch, use, options.steps, tokens));
    if (round == 0) continue;
    figure.speeds.push_back(used);
    figure.denominators.push_back(plain);
  }
  // What is done with rows on the way changes no logit.
  SEXTANT_ASSIGN_OR_RETURN(const uint64_t with, loop.HashLogits(batch, use));
  SEXTANT_ASSIGN_OR_RETURN(const uint64_t without, loop.HashLogits(batch, {}));
  figure.proof.hashes = {with};
  figure.proof.denominator_hashes = {without};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Figure>> MeasureDecode(Backend& backend, const std::string& shape,
                                                  const ModelSpec& spec, const DecodeFigureOptions& options) {
  SEXTANT_ASSIGN_OR_RETURN(const Difference difference, CompareWithCpu(backend, spec));
  const int32_t most = *std::max_element(options.batches.begin(), options.batches.end());
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeLoop> loop,
                           DecodeLoop::Make(backend, spec, most, options.context, options.steps));
  std::vector<Figure> figures;
  SEXTANT_ASSIGN_OR_RETURN(Figure bandwidth, MeasureBandwidth(backend, *loop, shape, options, difference));
  figures.push_back(std::move(bandwidth));
  const auto compare = [&](Figure figure, int32_t batch, const RowUse& use) -> absl::Status {
    figure.unit = "tokens/s";
    SEXTANT_RETURN_IF_ERROR(CompareUse(*loop, batch, use, options, difference, figure));
    figures.push_back(std::move(figure));
    return absl::OkStatus();
  };
  for (const int32_t batch : options.batches) {
    for (const int sites : {1, 3}) {
      Figure figure;
      figure.name = "G5";
      figure.what =
          absl::StrCat("capture of ", sites, " sites / without, ", shape, ", ", batch, " sequences");
      figure.target = batch == 1 ? (sites == 1 ? 0.985 : 0.97) : (sites == 1 ? 0.97 : 0.95);
      SEXTANT_RETURN_IF_ERROR(compare(std::move(figure), batch, {sites, false}));
    }
  }
  for (const int sites : {1, 3}) {
    Figure figure;
    figure.name = "G6";
    figure.what = absl::StrCat("lens in every step, ", sites, " sites / without, ", shape, ", 1 sequence");
    figure.target = sites == 1 ? 0.95 : 0.92;
    // The lens reads the head by itself, after the step has read it for its logits.
    const double bytes = loop->StepBytes(1);
    figure.bound = bytes / (bytes + loop->HeadBytes());
    SEXTANT_RETURN_IF_ERROR(compare(std::move(figure), 1, {sites, true}));
  }
  return figures;
}

}  // namespace sextant
