// The launchers of small operations: each queues its kernels on a stream and returns the launch's error.
// Shapes are CHECKed by the backend (kernels/shapes.h); memory is the device's unless said otherwise.
//
// What differs from step to step (row lists, their counts, steering) is read from device memory, where a
// launch has room for `capacity` of it: the same launch can then be replayed as part of a graph. C++17, no
// device language.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace sextant::cuda {

// x += y. F32 [rows, n].
cudaError_t Add(Tensor x, Tensor y, cudaStream_t stream);

// out = silu(gate) * up. gate_up F32 [rows, 2 * n], out F32 or BF16 [rows, n].
cudaError_t SwiGlu(Tensor gate_up, Tensor out, cudaStream_t stream);

// out = in (+ bias). in F32, out F32 or BF16 [rows, n], bias F32 [1, n] or empty; in and out may be the same
// memory if their dtypes are.
cudaError_t AddBias(Tensor in, Tensor bias, Tensor out, cudaStream_t stream);

// out = in / rms(in) * weight. in F32 [rows, n], weight F32 [1, n], out F32 or BF16 [rows, n].
cudaError_t RmsNorm(Tensor in, Tensor weight, float eps, Tensor out, cudaStream_t stream);

// x += y, then as RmsNorm of x. x and y F32 [rows, n].
cudaError_t AddRmsNorm(Tensor x, Tensor y, Tensor weight, float eps, Tensor out, cudaStream_t stream);

// out[r] = table[ids[r] - first_id], or zeros where that is no row of the table. table F32 or BF16, ids I32
// [rows, 1], out F32.
cudaError_t Embed(Tensor table, int64_t first_id, Tensor ids, Tensor out, cudaStream_t stream);

// out[i] = in[rows[i]], both F32 or both BF16. rows [out.rows].
cudaError_t GatherRows(Tensor in, const int32_t* rows, Tensor out, cudaStream_t stream);

// ---- recording

struct RecordItem {
  int64_t offset;  // bytes, a multiple of the element's size
  int32_t row;
  int32_t unused;
};
struct RecordList {
  int32_t count;
  int32_t unused[3];
  // RecordItem [capacity] follows.
};
// A row that waits in a chunk of device memory to be sent where it belongs.
struct StagedRow {
  char* to;        // null: there is none
  int32_t offset;  // of its bytes in the chunk
  int32_t bytes;
};
// Rows of a chunk: bytes from the chunk's start, StagedRows from its end, so row i is rows[-i].
struct StagedRows {
  char* chunk = nullptr;
  StagedRow* rows = nullptr;
  int32_t offset = 0;  // of the first row's bytes
  int32_t stride = 0;  // from one row's bytes to the next's, a multiple of 16
};
// Which rows are recorded, and where to.
struct RecordPlaces {
  const RecordList* list = nullptr;
  int32_t first = 0;     // of its items
  int32_t capacity = 0;  // items from there that the launch has room for
  char* ring = nullptr;
  // With a chunk: rows are written there, one for each item there is room for, and sent by SendRows.
  // Without, they are written to their places, device or pinned memory.
  StagedRows staged;
};
// Writes each row to ring + offset as `dtype`, F32 or BF16.
cudaError_t RecordRows(Tensor activation, DType dtype, const RecordPlaces& places, cudaStream_t stream);
// Writes each row's sqrt(mean(x^2) + eps), F32.
cudaError_t RecordRms(Tensor activation, float eps, const RecordPlaces& places, cudaStream_t stream);
// Sends `count` staged rows to their places in the host's memory. Takes a small part of the device, for as
// long as the bus takes.
cudaError_t SendRows(const StagedRows& staged, int32_t count, cudaStream_t stream);

// ---- steering

// SteerOperator, whose header device code does not include; row_lists.cc asserts that the two agree.
enum class SteerOp : int32_t { kAdd, kAddScaled, kAblate, kClamp, kSet };

// One intervention, as SteerEntry without its rows.
struct SteerItem {
  const float* direction;  // [hidden]
  float strength, low, high;
  SteerOp op;
  int32_t preserve_norm;
  int32_t unused;
};
// A row that is touched, and by which items in which order: uses [first_use, first_use + use_count).
struct SteeredRow {
  int32_t row, first_use, use_count, unused;
};
struct SteerList {
  int32_t row_count;
  int32_t unused[3];
};
// Room for so many rows, uses and items: SteeredRow [rows], SteerItem [items], int32 [uses] follow the list
// in this order.
struct SteerCapacity {
  int32_t rows, items, uses;
};
inline constexpr int64_t SteerListBytes(const SteerCapacity& capacity) {
  return static_cast<int64_t>(sizeof(SteerList)) + int64_t{capacity.rows} * sizeof(SteeredRow) +
         int64_t{capacity.items} * sizeof(SteerItem) + int64_t{capacity.uses} * sizeof(int32_t);
}
// Widest row that fits kMostSharedBytes, beside 3 KiB that its reductions take.
inline constexpr int64_t kMaxSteeredWidth = 24'576;
// Changes rows in place, arithmetic in F32; a BF16 row is rounded after each intervention.
cudaError_t Steer(Tensor activation, const SteerList* list, const SteerCapacity& capacity,
                  cudaStream_t stream);

}  // namespace sextant::cuda
