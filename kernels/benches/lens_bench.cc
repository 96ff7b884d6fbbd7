// Measures the CPU lens against its matrix product alone: lens_bench [hidden] [vocab] [groups] [rows per
// group] [rounds].
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/lens.h"
#include "kernels/cpu/matmul.h"
#include "kernels/reference/lens_case.h"

namespace sextant {
namespace {

using cpu::kLensBlockPanels;
using cpu::kLensTileRows;

// Time of this thread on its core: what other programs take away does not count.
template <typename Work>
double SecondsOf(const Work& work) {
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double start = now();
  work();
  return now() - start;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// The product of `rows` rows with the whole head in tiles of `tile_rows`, each block's results over the last
// one's.
void MultiplyOnly(CpuIsa isa, const PackedMatrix& head, const std::vector<bf16>& x, int64_t rows,
                  int64_t tile_rows, std::vector<float>& out) {
  for (int64_t row = 0; row < rows; row += tile_rows) {
    for (int64_t panel = 0; panel < head.panel_count(); panel += kLensBlockPanels) {
      cpu::MatMulPanels(isa, x.data() + row * head.cols(), head.cols(), std::min(tile_rows, rows - row), head,
                        panel, std::min(kLensBlockPanels, head.panel_count() - panel), out.data(),
                        kLensBlockPanels * kPanel);
    }
  }
}

void Measure(CpuIsa isa, const LensCase& lens_case, int rounds) {
  const LensCaseOptions& options = lens_case.options();
  const auto head =
      PackedMatrix::Pack(options.compute, options.vocab, options.hidden, lens_case.Head()).value();
  const LensBatch batch = lens_case.Batch();
  const int64_t rows = batch.rows.rows;
  LensResult result(batch);
  const std::vector<bf16> x(static_cast<size_t>(rows * options.hidden), ToBF16(1.0f));
  const int64_t groups_per_tile = std::max<int64_t>(1, kLensTileRows / options.group_sizes[0]);
  const int64_t tile_rows = std::min(kLensTileRows, groups_per_tile * options.group_sizes[0]);
  std::vector<float> out(static_cast<size_t>(kLensTileRows * kLensBlockPanels * kPanel));
  std::vector<double> product_seconds, lens_seconds, ratios;
  // Interleaved, because the machine's speed changes from second to second.
  for (int round = 0; round <= rounds; ++round) {
    const double product = SecondsOf([&] { MultiplyOnly(isa, *head, x, rows, tile_rows, out); });
    const double lens = SecondsOf([&] {
      const auto status =
          cpu::Lens(isa, batch, lens_case.NormWeight(), lens_case.eps(), *head, result.Output());
      SEXTANT_CHECK(status.ok());
    });
    if (round == 0) continue;  // warms up
    product_seconds.push_back(product);
    lens_seconds.push_back(lens);
    ratios.push_back(product / lens);
  }
  const double flops = 2.0 * static_cast<double>(rows) * options.hidden * options.vocab;
  std::printf(
      "%-10s k=%d tracked=%d: lens %.0f rows/s, %.0f GFLOP/s; product alone %.0f rows/s, %.0f GFLOP/s; "
      "ratio %.3f (%.3f-%.3f); checksum %.6f\n",
      CpuIsaName(isa), options.top_k, options.tracked, static_cast<double>(rows) / Median(lens_seconds),
      flops / Median(lens_seconds) * 1e-9, static_cast<double>(rows) / Median(product_seconds),
      flops / Median(product_seconds) * 1e-9, Median(ratios), *std::min_element(ratios.begin(), ratios.end()),
      *std::max_element(ratios.begin(), ratios.end()),
      std::accumulate(result.entropy.begin(), result.entropy.end(), 0.0));
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  const auto argument = [&](int i, int fallback) { return argc > i ? std::atoi(argv[i]) : fallback; };
  using sextant::CpuIsa;
  sextant::LensCaseOptions options;
  options.hidden = argument(1, 576);
  options.vocab = argument(2, 49152);
  options.group_sizes.assign(static_cast<size_t>(argument(3, 8)), argument(4, 31));
  options.row_dtype = options.compute = sextant::DType::kBF16;
  std::printf("hidden %d, vocab %d, %d groups of %d rows, one thread, per second of its core's time\n",
              options.hidden, options.vocab, argument(3, 8), argument(4, 31));
  for (bool tracked : {false, true}) {
    options.tracked = tracked;
    const sextant::LensCase lens_case(options);
    for (CpuIsa isa : {CpuIsa::kAvx2, CpuIsa::kAvx512Bf16}) {
      if (sextant::HasCpuIsa(isa)) sextant::Measure(isa, lens_case, argument(5, 9));
    }
  }
}
