// A tiny head, leases of made-up rows, and the lens in plain double arithmetic to compare with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/model/lens_head.h"
#include "kernels/backend.h"
#include "services/lens_decoder/lease.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

inline constexpr int kTinyHidden = 8;
inline constexpr int kTinyVocab = 40;
inline constexpr float kTinyEps = 1e-5f;

// Final norm and head with made-up weights, in F32.
struct TinyHead {
  TinyHead();
  // The same for a backend. REQUIRES: the backend outlives it.
  LensHead Load(Backend& backend) const;

  std::vector<float> norm;  // [kTinyHidden]
  std::vector<float> head;  // [kTinyVocab, kTinyHidden]
};

struct TinyLeaseOptions {
  std::vector<std::pair<v1::Site, int>> rows = {};  // recorded, with their layers
  std::vector<int> row_indices = {};                // asked for; empty: all
  int final_row_index = 0;
  int position_count = 1;
  int top_k = 3;
  std::vector<int32_t> target_ids = {};
  bool tracked = false;
  bool residual = false;  // normalization, with scales
};

// Random F32 rows; positions 100, 101, ... with the targets 0, 1, ...; scales 1.5, 2.5, ... of a row.
Lease MakeTinyLease(const TinyLeaseOptions& options, uint32_t seed);

// Row `index` of position number `position`. [kTinyHidden]
std::vector<float> RowOf(const Lease& lease, int position, int index);
void SetRow(Lease& lease, int position, int index, const std::vector<float>& values);

// Log-probabilities over the vocabulary that the lens gives a row, in double. `scale` > 0 replaces its rms.
std::vector<double> Logprobs(const TinyHead& head, const std::vector<float>& row, double scale);

// The values of a column of Readings.
template <typename T>
std::vector<T> Column(const std::string& bytes) {
  const T* begin = reinterpret_cast<const T*>(bytes.data());
  return std::vector<T>(begin, begin + bytes.size() / sizeof(T));
}

}  // namespace sextant
