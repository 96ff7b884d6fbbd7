// G4, G5 and G6: decoding beside a copy of memory, and decoding with capture or lens beside plain decoding.
#include "tests/gpu/decode_figures.h"

#include <algorithm>
#include <iterator>
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

constexpr RowUse kPlain = {};
constexpr RowUse kUses[] = {kPlain, {1, false}, {3, false}, {1, true}, {3, true}};

// [kUses] from the CPU's logits, rows and readings, of one layer of the shape over a few tokens from an empty
// context: what a whole model of the real shapes would take too long for.
using Differences = std::vector<double>;

double DifferenceOf(const Differences& differences, const RowUse& use) {
  const auto* const found = std::find(std::begin(kUses), std::end(kUses), use);
  return differences.at(static_cast<size_t>(found - kUses));
}

absl::StatusOr<Differences> CompareWithCpu(Backend& backend, ModelSpec spec) {
  constexpr int32_t kBatch = 2, kSteps = 4;
  spec.layer_count = 1;
  const auto values = [&](Backend& on) -> absl::StatusOr<std::vector<std::vector<float>>> {
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeLoop> loop,
                             DecodeLoop::Make(on, spec, kBatch, 0, kSteps));
    std::vector<std::vector<float>> all;
    for (const RowUse& use : kUses) {
      SEXTANT_ASSIGN_OR_RETURN(all.emplace_back(), loop->ValuesOfGivenTokens(kBatch, use));
    }
    return all;
  };
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> cpu, MakeCpuBackend({}));
  SEXTANT_ASSIGN_OR_RETURN(const auto got, values(backend));
  SEXTANT_ASSIGN_OR_RETURN(const auto want, values(*cpu));
  Differences differences;
  for (size_t i = 0; i < want.size(); ++i) {
    differences.push_back(
        LargestDifference(got[i].data(), want[i].data(), static_cast<int64_t>(want[i].size())));
  }
  return differences;
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
                                        const DecodeFigureOptions& options, double difference) {
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(const Buffer from, backend.Allocate(options.copy_bytes, MemoryKind::kDevice));
  SEXTANT_ASSIGN_OR_RETURN(const Buffer to, backend.Allocate(options.copy_bytes, MemoryKind::kDevice));
  backend.Zero(*stream, from.data(), from.bytes());
  Figure figure;
  figure.name = "G4";
  figure.what = absl::StrCat("decode / copy within the device, ", shape, ", 1 sequence");
  figure.unit = "GB/s";
  figure.target = 0.70;
  figure.proof.error = difference;
  figure.proof.tolerance = kTolerance;
  uint64_t tokens = 0;
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double copy, CopySpeed(backend, *stream, from, to));
    SEXTANT_ASSIGN_OR_RETURN(const double speed, DecodeSpeed(loop, 1, kPlain, options.steps, tokens));
    if (round == 0) continue;  // warms up, and records what is replayed
    figure.speeds.push_back(speed * loop.StepBytes(1) * 1e-9);
    figure.denominators.push_back(copy * 1e-9);
  }
  for (int i = 0; i < 2; ++i) {
    SEXTANT_ASSIGN_OR_RETURN(const DecodeHashes hashes, loop.Hash(1, kPlain));
    figure.proof.hashes.push_back(hashes.logits);
  }
  return figure;
}

absl::Status CompareUse(DecodeLoop& loop, int32_t batch, const RowUse& use,
                        const DecodeFigureOptions& options, double difference, Figure& figure) {
  figure.proof.error = difference;
  figure.proof.tolerance = kTolerance;
  uint64_t tokens = 0;
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double plain, DecodeSpeed(loop, batch, kPlain, options.steps, tokens));
    SEXTANT_ASSIGN_OR_RETURN(const double used, DecodeSpeed(loop, batch, use, options.steps, tokens));
    figure.proof.row_hashes.push_back(loop.HashRows(batch, use));
    if (round == 0) continue;
    figure.speeds.push_back(used);
    figure.denominators.push_back(plain);
  }
  // What is done with rows on the way changes no logit.
  SEXTANT_ASSIGN_OR_RETURN(const DecodeHashes with, loop.Hash(batch, use));
  SEXTANT_ASSIGN_OR_RETURN(const DecodeHashes without, loop.Hash(batch, kPlain));
  figure.proof.hashes = {with.logits};
  figure.proof.denominator_hashes = {without.logits};
  figure.proof.row_hashes.push_back(with.rows);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Figure>> MeasureDecode(Backend& backend, const std::string& shape,
                                                  const ModelSpec& spec, const DecodeFigureOptions& options) {
  SEXTANT_ASSIGN_OR_RETURN(const Differences differences, CompareWithCpu(backend, spec));
  const int32_t most = *std::max_element(options.batches.begin(), options.batches.end());
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeLoop> loop,
                           DecodeLoop::Make(backend, spec, most, options.context, options.steps));
  std::vector<Figure> figures;
  SEXTANT_ASSIGN_OR_RETURN(
      Figure bandwidth, MeasureBandwidth(backend, *loop, shape, options, DifferenceOf(differences, kPlain)));
  figures.push_back(std::move(bandwidth));
  const auto compare = [&](Figure figure, int32_t batch, const RowUse& use) -> absl::Status {
    figure.unit = "tokens/s";
    SEXTANT_RETURN_IF_ERROR(CompareUse(*loop, batch, use, options, DifferenceOf(differences, use), figure));
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
