// G1 and G2: the fused lens beside a plain matrix product of the same run.
#include "tests/gpu/lens_figures.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/backend.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int32_t kTopK = 10;
// Both round the same rows and heads to BF16 and add up in F32, in other orders: a row's norm may differ in
// its last place, and then some of its elements round apart, by 2^-8 of themselves.
constexpr double kTolerance = 0.01;

// Normal numbers, of which a few thousand are drawn and repeated.
std::vector<float> Noise(float deviation) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(65521);
  for (float& value : values) value = normal(random);
  return values;
}

RowSource NoiseRows(int64_t cols) {
  return [cols, noise = Noise(0.05f)](int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count * cols; ++i) {
      out[i] = noise[static_cast<size_t>(first * cols + i) % noise.size()];
    }
    return absl::OkStatus();
  };
}

// Device memory with BF16 noise [rows, cols].
absl::StatusOr<Buffer> NoiseOnDevice(Backend& backend, Stream& stream, int64_t rows, int64_t cols) {
  std::vector<bf16> host(static_cast<size_t>(rows * cols));
  const std::vector<float> noise = Noise(3);
  for (size_t i = 0; i < host.size(); ++i) host[i] = ToBF16(noise[i % noise.size()]);
  const auto bytes = static_cast<int64_t>(host.size() * sizeof(bf16));
  SEXTANT_ASSIGN_OR_RETURN(Buffer buffer, backend.Allocate(bytes, MemoryKind::kDevice));
  backend.Copy(stream, buffer.data(), host.data(), bytes);
  SEXTANT_RETURN_IF_ERROR(backend.Synchronize(stream));
  return buffer;
}

// A square product.
class PlainProduct {
 public:
  static absl::StatusOr<PlainProduct> Make(Backend& backend, Stream& stream, int64_t size) {
    PlainProduct product;
    product.size_ = size;
    SEXTANT_ASSIGN_OR_RETURN(product.in_, NoiseOnDevice(backend, stream, size, size));
    SEXTANT_ASSIGN_OR_RETURN(product.out_, backend.Allocate(size * size * 2, MemoryKind::kDevice));
    SEXTANT_ASSIGN_OR_RETURN(product.weight_, backend.PackMatrix(DType::kBF16, size, size, NoiseRows(size)));
    return product;
  }
  absl::Status Run(Backend& backend, Stream& stream) const {
    backend.MatMul(stream, Tensor::Of(in_, DType::kBF16, size_, size_), *weight_, Tensor{},
                   Tensor::Of(out_, DType::kBF16, size_, size_));
    return backend.Synchronize(stream);
  }
  double Work() const { return 2.0 * static_cast<double>(size_) * static_cast<double>(size_ * size_); }

 private:
  int64_t size_ = 0;
  Buffer in_, out_;
  std::unique_ptr<Matrix> weight_;
};

// A batch of rows, a head, and room for what is read out of them.
class LensRun {
 public:
  static absl::StatusOr<LensRun> Make(Backend& backend, Stream& stream, const LensFigureOptions& options) {
    LensRun run;
    const int64_t rows = options.groups * options.group_rows;
    SEXTANT_ASSIGN_OR_RETURN(run.rows_, NoiseOnDevice(backend, stream, rows, options.hidden));
    SEXTANT_ASSIGN_OR_RETURN(run.head_, backend.PackMatrix(DType::kBF16, options.vocab, options.hidden,
                                                           NoiseRows(options.hidden)));
    SEXTANT_ASSIGN_OR_RETURN(run.norm_, backend.Allocate(options.hidden * 4, MemoryKind::kDevice));
    const std::vector<float> ones(static_cast<size_t>(options.hidden), 1.0f);
    backend.Copy(stream, run.norm_.data(), ones.data(), options.hidden * 4);
    SEXTANT_RETURN_IF_ERROR(backend.Synchronize(stream));
    SEXTANT_ASSIGN_OR_RETURN(run.results_, backend.Allocate(rows * (2 * kTopK + 4) * 4, MemoryKind::kPinned));
    run.batch_.rows = Tensor::Of(run.rows_, DType::kBF16, rows, options.hidden);
    for (int64_t g = 0; g < options.groups; ++g) {
      for (int64_t r = 0; r < options.group_rows; ++r) {
        run.batch_.row_info.push_back({static_cast<int32_t>(g), 0});
      }
      run.batch_.final_rows.push_back(static_cast<int32_t>((g + 1) * options.group_rows - 1));
      run.batch_.targets.push_back(static_cast<int32_t>(g * 7919 % options.vocab));
    }
    run.batch_.target_count = 1;
    run.batch_.top_k = kTopK;
    auto* results = static_cast<float*>(run.results_.data());
    run.output_.top_logprobs = results;
    run.output_.top_ids = reinterpret_cast<int32_t*>(results + rows * kTopK);
    run.output_.entropy_nats = results + rows * 2 * kTopK;
    run.output_.kl_final_nats = run.output_.entropy_nats + rows;
    run.output_.target_logprobs = run.output_.entropy_nats + 2 * rows;
    run.output_.target_ranks = reinterpret_cast<int32_t*>(run.output_.entropy_nats + 3 * rows);
    return run;
  }
  absl::Status Run(Backend& backend, Stream& stream) const {
    backend.Lens(stream, batch_, Tensor::Of(norm_, DType::kF32, 1, head_->cols()), 1e-5f, *head_, output_);
    return backend.Synchronize(stream);
  }
  uint64_t Hash() const { return HashOf(results_.data(), results_.bytes()); }
  // Of the log-probabilities, entropies and divergences of the other's rows, which are the first of these.
  double DifferenceFrom(const LensRun& other) const {
    const int64_t rows = other.batch_.rows.rows;
    return std::max({LargestDifference(output_.top_logprobs, other.output_.top_logprobs, rows * kTopK),
                     LargestDifference(output_.entropy_nats, other.output_.entropy_nats, rows),
                     LargestDifference(output_.kl_final_nats, other.output_.kl_final_nats, rows)});
  }
  double Work() const {
    return 2.0 * static_cast<double>(batch_.rows.rows) * static_cast<double>(head_->rows() * head_->cols());
  }

 private:
  Buffer rows_, norm_, results_;
  std::unique_ptr<Matrix> head_;
  LensBatch batch_;
  LensOutput output_;
};

// The first group on the CPU.
absl::StatusOr<LensRun> FirstGroupOnCpu(Backend& cpu, LensFigureOptions options) {
  options.groups = 1;
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, cpu.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(LensRun run, LensRun::Make(cpu, *stream, options));
  SEXTANT_RETURN_IF_ERROR(run.Run(cpu, *stream));
  return run;
}

}  // namespace

absl::StatusOr<Figure> MeasureLens(Backend& backend, const LensFigureOptions& options) {
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(const PlainProduct product,
                           PlainProduct::Make(backend, *stream, options.product_size));
  SEXTANT_ASSIGN_OR_RETURN(const LensRun lens, LensRun::Make(backend, *stream, options));
  Figure figure;
  figure.name = options.name;
  figure.what = absl::StrCat("lens / product ", options.product_size, "^3, hidden ", options.hidden,
                             ", vocab ", options.vocab, ", ", options.groups * options.group_rows, " rows");
  figure.unit = "TFLOP/s";
  figure.target = options.target;
  for (int round = 0; round <= options.rounds; ++round) {
    SEXTANT_ASSIGN_OR_RETURN(const double product_seconds,
                             SecondsOf([&] { return product.Run(backend, *stream); }));
    SEXTANT_ASSIGN_OR_RETURN(const double lens_seconds,
                             SecondsOf([&] { return lens.Run(backend, *stream); }));
    figure.proof.hashes.push_back(lens.Hash());
    if (round == 0) continue;  // warms up
    figure.speeds.push_back(lens.Work() / lens_seconds * 1e-12);
    figure.denominators.push_back(product.Work() / product_seconds * 1e-12);
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> cpu, MakeCpuBackend({}));
  SEXTANT_ASSIGN_OR_RETURN(const LensRun expected, FirstGroupOnCpu(*cpu, options));
  figure.proof.error = lens.DifferenceFrom(expected);
  figure.proof.tolerance = kTolerance;
  return figure;
}

}  // namespace sextant
