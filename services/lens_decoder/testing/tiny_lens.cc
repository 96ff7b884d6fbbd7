// A tiny head and leases of made-up rows.
#include "services/lens_decoder/testing/tiny_lens.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "kernels/check.h"

namespace sextant {

TinyHead::TinyHead() {
  std::mt19937 random(42);
  std::normal_distribution<float> normal;
  for (int i = 0; i < kTinyHidden; ++i) norm.push_back(1 + 0.2f * normal(random));
  for (int i = 0; i < kTinyVocab * kTinyHidden; ++i) head.push_back(normal(random));
}

LensHead TinyHead::Load(Backend& backend) const {
  LensHead loaded;
  loaded.hidden_size = kTinyHidden;
  loaded.vocab_size = kTinyVocab;
  loaded.norm_eps = kTinyEps;
  auto stream = backend.CreateStream();
  auto buffer = backend.Allocate(kTinyHidden * SizeOf(DType::kF32), MemoryKind::kDevice);
  SEXTANT_CHECK(stream.ok() && buffer.ok());
  loaded.norm_weight = *std::move(buffer);
  backend.Copy(**stream, loaded.norm_weight.data(), norm.data(), kTinyHidden * SizeOf(DType::kF32));
  SEXTANT_CHECK(backend.Synchronize(**stream).ok());
  auto matrix = backend.PackMatrix(DType::kF32, kTinyVocab, kTinyHidden,
                                   [this](int64_t first, int64_t count, float* out) {
                                     std::copy_n(head.data() + first * kTinyHidden, count * kTinyHidden, out);
                                     return absl::OkStatus();
                                   });
  SEXTANT_CHECK(matrix.ok());
  loaded.head = *std::move(matrix);
  return loaded;
}

Lease MakeTinyLease(const TinyLeaseOptions& options, uint32_t seed) {
  Lease lease;
  lease.id = 7;
  lease.capture = std::string(16, 'c');
  lease.spec.set_dtype(v1::DTYPE_F32);
  lease.spec.set_hidden_size(kTinyHidden);
  for (const auto& [site, layer] : options.rows) {
    lease.spec.add_rows()->set_site(site);
    lease.spec.mutable_rows()->rbegin()->set_layer(layer);
  }
  lease.spec.set_has_scales(options.residual);
  internal::v1::LensPlan& lens = *lease.spec.mutable_lens();
  for (const int index : options.row_indices) lens.add_row_indices(index);
  for (int i = 0; options.row_indices.empty() && i < lease.spec.rows_size(); ++i) lens.add_row_indices(i);
  lens.set_final_row_index(options.final_row_index);
  lens.set_top_k(options.top_k);
  *lens.mutable_target_ids() = {options.target_ids.begin(), options.target_ids.end()};
  lens.set_tracked(options.tracked);
  lens.set_normalization(options.residual ? v1::NORMALIZATION_RESIDUAL : v1::NORMALIZATION_OWN);

  lease.spec_key = lease.spec.SerializeAsString();

  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto append = [&lease](float value) {
    lease.data.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (int p = 0; p < options.position_count; ++p) {
    lease.positions.push_back(100 + p);
    lease.target_ids.push_back(p);
    for (int i = 0; i < lease.spec.rows_size() * kTinyHidden; ++i) append(normal(random));
    for (int i = 0; options.residual && i < lease.spec.rows_size(); ++i) append(1.5f + static_cast<float>(i));
  }
  return lease;
}

std::vector<float> RowOf(const Lease& lease, int position, int index) {
  std::vector<float> row(kTinyHidden);
  std::memcpy(row.data(),
              lease.data.data() + position * PositionBytes(lease.spec) + RowOffset(lease.spec, index),
              kTinyHidden * sizeof(float));
  return row;
}

void SetRow(Lease& lease, int position, int index, const std::vector<float>& values) {
  SEXTANT_CHECK(values.size() == kTinyHidden);
  std::memcpy(lease.data.data() + position * PositionBytes(lease.spec) + RowOffset(lease.spec, index),
              values.data(), kTinyHidden * sizeof(float));
}

std::vector<double> Logprobs(const TinyHead& head, const std::vector<float>& row, double scale) {
  if (!(scale > 0)) {
    double squares = 0;
    for (const float x : row) squares += double{x} * x;
    scale = std::sqrt(squares / kTinyHidden + kTinyEps);
  }
  std::vector<double> logits;
  double sum = 0;
  for (int v = 0; v < kTinyVocab; ++v) {
    double logit = 0;
    for (int i = 0; i < kTinyHidden; ++i) {
      logit += row[static_cast<size_t>(i)] / scale * head.norm[static_cast<size_t>(i)] *
               head.head[static_cast<size_t>(v * kTinyHidden + i)];
    }
    logits.push_back(logit);
    sum += std::exp(logit);
  }
  for (double& logit : logits) logit -= std::log(sum);
  return logits;
}

}  // namespace sextant
