// G4, G5 and G6: decoding beside a copy of memory, and decoding with capture or lens beside plain decoding.
#include "tests/gpu/decode_figures.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "tests/gpu/decode_loop.h"

namespace sextant {
namespace {

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

// Tokens per second of every sequence together.
absl::StatusOr<double> DecodeSpeed(DecodeLoop& loop, int32_t batch, const RowUse& use, int32_t steps) {
  SEXTANT_ASSIGN_OR_RETURN(const double seconds, SecondsOf([&] { return loop.Run(batch, use); }));
  return batch * steps / seconds;
}

absl::StatusOr<Figure> MeasureBandwidth(Backend& backend, DecodeLoop& loop, const std::string& shape,
                                        const DecodeFigureOptions& options) {
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(const Buffer from, backend.Allocate(options.copy_bytes, MemoryKind::kDevice));
  SEXTANT_ASSIGN_OR_RETURN(const Buffer to, backend.Allocate(options.copy_bytes, MemoryKind::kDevice));
  backend.Zero(*stream, from.data(), from.bytes());
  Figure figure = {
      "G4", absl::StrCat("decode / copy within the device, ", shape, ", 1 sequence"), "GB/s", 0.70, {}, {}};
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double copy, CopySpeed(backend, *stream, from, to));
    SEXTANT_ASSIGN_OR_RETURN(const double tokens, DecodeSpeed(loop, 1, {}, options.steps));
    if (round == 0) continue;  // warms up, and records what is replayed
    figure.speeds.push_back(tokens * loop.StepBytes(1) * 1e-9);
    figure.denominators.push_back(copy * 1e-9);
  }
  return figure;
}

absl::Status CompareUse(DecodeLoop& loop, int32_t batch, const RowUse& use,
                        const DecodeFigureOptions& options, Figure& figure) {
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double plain, DecodeSpeed(loop, batch, {}, options.steps));
    SEXTANT_ASSIGN_OR_RETURN(const double used, DecodeSpeed(loop, batch, use, options.steps));
    if (round == 0) continue;
    figure.speeds.push_back(used);
    figure.denominators.push_back(plain);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Figure>> MeasureDecode(Backend& backend, const std::string& shape,
                                                  const ModelSpec& spec, const DecodeFigureOptions& options) {
  const int32_t most = *std::max_element(options.batches.begin(), options.batches.end());
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeLoop> loop,
                           DecodeLoop::Make(backend, spec, most, options.context, options.steps));
  std::vector<Figure> figures;
  SEXTANT_ASSIGN_OR_RETURN(Figure bandwidth, MeasureBandwidth(backend, *loop, shape, options));
  figures.push_back(std::move(bandwidth));
  for (const int32_t batch : options.batches) {
    for (const int sites : {1, 3}) {
      const double target = batch == 1 ? (sites == 1 ? 0.985 : 0.97) : (sites == 1 ? 0.97 : 0.95);
      Figure figure = {
          "G5",
          absl::StrCat("capture of ", sites, " sites / without, ", shape, ", ", batch, " sequences"),
          "tokens/s",
          target,
          {},
          {}};
      SEXTANT_RETURN_IF_ERROR(CompareUse(*loop, batch, {sites, false}, options, figure));
      figures.push_back(std::move(figure));
    }
  }
  for (const int sites : {1, 3}) {
    Figure figure = {
        "G6",       absl::StrCat("lens in every step, ", sites, " sites / without, ", shape, ", 1 sequence"),
        "tokens/s", sites == 1 ? 0.95 : 0.92,
        {},         {}};
    SEXTANT_RETURN_IF_ERROR(CompareUse(*loop, 1, {sites, true}, options, figure));
    figures.push_back(std::move(figure));
  }
  return figures;
}

}  // namespace sextant
