// Measures products with packed weights against this core's read bandwidth and peak: matmul_bench [isa]
// [dtype].
//
// Every speed is a ratio to what the machine did in the same round, since other programs share it; the median
// of the rounds is printed with their spread, and beside it a hash of the result, so that a fast wrong answer
// shows.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/benches/machine.h"
#include "kernels/cpu/matmul.h"

namespace sextant::bench {
namespace {

struct Layer {
  const char* name;
  int64_t outputs, inputs;
};

// A model of 135 million parameters.
constexpr Layer kLayers[] = {
    {"qkv", 960, 576}, {"o", 576, 576}, {"gate_up", 3072, 576}, {"down", 576, 1536}, {"lm_head", 49152, 576}};
// Weights are cycled through so much memory that no cache holds them, as between two steps of a model.
constexpr int64_t kColdBytes = int64_t{320} << 20;
constexpr int kRounds = 7;

std::vector<std::unique_ptr<PackedMatrix>> Pack(const Layer& layer, DType dtype, int64_t copies) {
  std::vector<std::unique_ptr<PackedMatrix>> packed;
  for (int64_t i = 0; i < copies; ++i) {
    uint32_t state = 1;
    packed.push_back(
        PackedMatrix::Pack(dtype, layer.outputs, layer.inputs, [&](int64_t, int64_t count, float* out) {
          for (int64_t j = 0; j < count * layer.inputs; ++j) {
            state = state * 1664525u + 1013904223u;
            out[j] = static_cast<float>(state >> 16) * 0x1p-16f - 0.5f;
          }
          return absl::OkStatus();
        }).value());
  }
  return packed;
}

uint64_t Hash(const std::vector<float>& values) {
  uint64_t hash = 14695981039346656037u;
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * 1099511628211u;
  }
  return hash;
}

void Measure(Machine& machine, CpuIsa isa, DType dtype, const Layer& layer, int64_t rows) {
  const bool cold = rows <= 16;
  const int64_t weight_bytes = layer.outputs * layer.inputs * SizeOf(dtype);
  const auto weights = Pack(layer, dtype, cold ? kColdBytes / weight_bytes + 1 : 1);
  std::vector<char> x(static_cast<size_t>(rows * layer.inputs * SizeOf(dtype)));
  const Tensor in = {x.data(), dtype, rows, layer.inputs, layer.inputs};
  std::mt19937 random(1);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < layer.inputs; ++k) in.Set(r, k, static_cast<float>(random()) * 0x1p-32f - 0.5f);
  }
  std::vector<float> results(static_cast<size_t>(rows * layer.outputs));
  const Tensor out = Tensor::Of(results.data(), DType::kF32, rows, layer.outputs);
  std::vector<double> speeds, ratios;
  for (int round = 0; round < kRounds; ++round) {
    const double limit = cold                    ? machine.ReadBandwidth()
                         : dtype == DType::kBF16 ? machine.BF16Peak()
                                                 : machine.F32Peak();
    const double seconds = SecondsOf([&] {
      for (const auto& w : weights) cpu::MatMul(isa, in, *w, Tensor(), out);
    });
    const double per_product =
        cold ? static_cast<double>(weight_bytes) : 2.0 * rows * layer.outputs * layer.inputs;
    speeds.push_back(per_product * static_cast<double>(weights.size()) / seconds);
    ratios.push_back(speeds.back() / limit);
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  std::printf("%-8s %5ld rows  %7.1f %s  %5.2f of the %s (%.2f to %.2f)  %7.1f GFLOP/s  %016lx\n", layer.name,
              static_cast<long>(rows), Median(speeds) * 1e-9, cold ? "GB/s   " : "GFLOP/s", Median(ratios),
              cold ? "read bandwidth" : "peak", *low, *high,
              Median(speeds) * 1e-9 * (cold ? 2.0 * rows / static_cast<double>(SizeOf(dtype)) : 1),
              static_cast<unsigned long>(Hash(results)));
}

int Main(int argc, char** argv) {
  CpuIsa isa = BestCpuIsa();
  for (const CpuIsa each : {CpuIsa::kAvx2, CpuIsa::kAvx512Bf16, CpuIsa::kAmxBf16}) {
    if (argc > 1 && std::strcmp(argv[1], CpuIsaName(each)) == 0) isa = each;
  }
  const DType dtype = argc > 2 && std::strcmp(argv[2], "f32") == 0 ? DType::kF32 : DType::kBF16;
  if (isa == CpuIsa::kReference || !HasCpuIsa(isa)) {
    std::fprintf(stderr, "nothing to measure: this machine has no %s\n", argc > 1 ? argv[1] : "AVX2");
    return 1;
  }
  Machine machine(isa);
  std::printf("%s %s, one thread: reads %.1f GB/s, multiplies %.1f GFLOP/s in bf16, %.1f in f32\n",
              CpuIsaName(isa), dtype == DType::kBF16 ? "bf16" : "f32", machine.ReadBandwidth() * 1e-9,
              machine.BF16Peak() * 1e-9, machine.F32Peak() * 1e-9);
  for (const int64_t rows : {1, 4, 8, 128, 1500}) {
    for (const Layer& layer : kLayers) Measure(machine, isa, dtype, layer, rows);
  }
  return 0;
}

}  // namespace
}  // namespace sextant::bench

int main(int argc, char** argv) { return sextant::bench::Main(argc, argv); }
