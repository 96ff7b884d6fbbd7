// Measures G1, G2, G4, G5 and G6 on one device with random weights of real shapes, as text and as JSON.
//   device_bench --device cuda:0 --json figures.json
// Exit codes: 0 measured; 1 something failed, or a figure is of something that was computed wrong; 3 there is
// no such device here.
#include <algorithm>
#include <fstream>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "kernels/status_macros.h"
#include "tests/gpu/decode_figures.h"
#include "tests/gpu/device_backend.h"
#include "tests/gpu/device_count.h"
#include "tests/gpu/lens_figures.h"
#include "tests/gpu/random_model.h"

ABSL_FLAG(std::string, device, "cuda:0", "Device to measure: cuda:N, or cpu.");
ABSL_FLAG(std::string, json, "", "File for the figures as JSON; empty: none.");
ABSL_FLAG(bool, tiny, false, "Shapes so small that any device runs them: shows that everything runs.");
ABSL_FLAG(bool, count_devices, false,
          "Measure nothing: see that the device is there, and print how many GPUs are.");

namespace sextant {
namespace {

constexpr int kNoDevice = 3;

absl::StatusOr<std::vector<Figure>> Measure(Backend& backend, bool tiny) {
  std::vector<LensFigureOptions> lenses(3);
  lenses[1] = {.name = "G2", .target = 0.75, .hidden = 2560, .vocab = 151936};
  lenses[2] = {.name = "G2", .target = 0.88, .hidden = 8192, .vocab = 128256};
  std::string shape = "llama-3.1-8b";
  DecodeFigureOptions decode;
  if (tiny) {
    lenses = {{.hidden = 32, .vocab = 300, .groups = 2, .group_rows = 3, .product_size = 32, .rounds = 2}};
    shape = "tiny";
    decode = {.context = 20, .steps = 3, .rounds = 2, .batches = {1, 2}, .copy_bytes = 4096};
  }
  std::vector<Figure> figures;
  for (const LensFigureOptions& lens : lenses) {
    SEXTANT_ASSIGN_OR_RETURN(Figure figure, MeasureLens(backend, lens));
    figures.push_back(std::move(figure));
  }
  SEXTANT_ASSIGN_OR_RETURN(const ModelSpec spec, NamedShape(shape));
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<Figure> decoded, MeasureDecode(backend, shape, spec, decode));
  figures.insert(figures.end(), decoded.begin(), decoded.end());
  return figures;
}

int Main() {
  const auto fail = [](const absl::Status& status, int code) {
    std::cerr << "device_bench: " << status << "\n";
    return code;
  };
  // Before this process uses CUDA.
  const int devices = absl::GetFlag(FLAGS_count_devices) ? CountDevices() : 0;
  const absl::StatusOr<Device> device = ParseDevice(absl::GetFlag(FLAGS_device));
  if (!device.ok()) return fail(device.status(), 1);
  const absl::StatusOr<std::unique_ptr<Backend>> backend = MakeDeviceBackend(*device);
  if (!backend.ok()) {
    return fail(backend.status(),
                backend.status().code() == absl::StatusCode::kFailedPrecondition ? kNoDevice : 1);
  }
  if (absl::GetFlag(FLAGS_count_devices)) {
    std::cout << devices << "\n";
    return 0;
  }
  const absl::StatusOr<std::vector<Figure>> figures = Measure(**backend, absl::GetFlag(FLAGS_tiny));
  if (!figures.ok()) return fail(figures.status(), 1);
  std::cout << AsText((*backend)->Name(), *figures);
  if (const std::string path = absl::GetFlag(FLAGS_json); !path.empty()) {
    std::ofstream file(path);
    file << AsJson((*backend)->Name(), *figures);
    file.close();
    if (!file) return fail(absl::UnknownError("cannot write " + path), 1);
  }
  const bool right = std::all_of(figures->begin(), figures->end(),
                                 [](const Figure& figure) { return figure.proof.Holds(); });
  return right ? 0 : fail(absl::DataLossError("a figure is of something that was computed wrong"), 1);
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return sextant::Main();
}
