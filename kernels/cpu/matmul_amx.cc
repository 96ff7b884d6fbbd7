// The panel product of bf16 with AMX tiles: 32 rows by 48 outputs, 32 inputs at a step.
//
// A row of a tile is computed without regard to the other rows, and every output takes the steps in ascending
// order, so a row's bits do not depend on its company. Blocks of fewer than 16 rows are filled up with zeros,
// except that a few rows go to matmul_amx_rows.cc, which does the same arithmetic without tiles.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant::cpu {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileOutputs = 16;
constexpr int64_t kStepCols = 32;  // inputs of one step: a tile's 16 pairs
constexpr int64_t kPanelStepBytes = kStepCols / 2 * kStepBytes;

// The operand of ldtilecfg: eight tiles of 16 rows of 64 bytes. A constant in memory: GCC 12 believes that
// loading it reads 8 bytes only, and leaves out the stores of a local one.
constexpr struct alignas(64) {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
} kTileConfig;

// The rows of a call as blocks of 16, 32 inputs at a step; copied with zeros behind them where either is not
// full.
class RowBlocks {
 public:
  struct Block {
    const bf16* x;
    int64_t stride_bytes;
    const bf16* Step(int64_t step) const { return x + step * kStepCols; }
  };

  explicit RowBlocks(const PanelCall& call)
      : call_(call),
        direct_(call.cols % kStepCols == 0 ? call.rows / kTileRows : 0),
        count_((call.rows + kTileRows - 1) / kTileRows),
        width_((call.cols + kStepCols - 1) / kStepCols * kStepCols),
        copies_(static_cast<size_t>((count_ - direct_) * kTileRows * width_)) {
    const auto* x = static_cast<const bf16*>(call.x);
    for (int64_t r = direct_ * kTileRows; r < call.rows; ++r) {
      std::memcpy(&copies_[(r - direct_ * kTileRows) * width_], x + r * call.x_stride,
                  static_cast<size_t>(call.cols) * sizeof(bf16));
    }
  }

  int64_t count() const { return count_; }
  // Rows of block `index` that exist.
  int64_t Rows(int64_t index) const { return std::min(kTileRows, call_.rows - index * kTileRows); }
  Block operator[](int64_t index) const {
    constexpr auto kSize = static_cast<int64_t>(sizeof(bf16));
    if (index < direct_) {
      return {static_cast<const bf16*>(call_.x) + index * kTileRows * call_.x_stride, call_.x_stride * kSize};
    }
    return {copies_.data() + (index - direct_) * kTileRows * width_, width_ * kSize};
  }

 private:
  const PanelCall& call_;
  const int64_t direct_;
  const int64_t count_;
  const int64_t width_;
  std::vector<bf16> copies_;  // [(count - direct) * 16, width]
};

// The panels of a call, 32 inputs at a step; a last step that is not full is a copy with zeros.
class PanelSteps {
 public:
  struct Panel {
    const char* w;
    const char* last;
    int64_t whole_steps;
    const char* Step(int64_t step) const { return step < whole_steps ? w + step * kPanelStepBytes : last; }
  };

  explicit PanelSteps(const PanelCall& call) : call_(call), whole_steps_(call.cols / kStepCols) {
    if (call.cols % kStepCols == 0) return;
    copies_.resize(static_cast<size_t>(call.panel_count * kPanelStepBytes));
    const int64_t from = whole_steps_ * kPanelStepBytes;
    for (int64_t p = 0; p < call.panel_count; ++p) {
      std::memcpy(&copies_[p * kPanelStepBytes], call.panels + p * call.panel_bytes + from,
                  static_cast<size_t>(call.panel_bytes - from));
    }
  }

  Panel operator[](int64_t index) const {
    return {call_.panels + index * call_.panel_bytes, copies_.data() + index * kPanelStepBytes, whole_steps_};
  }

 private:
  const PanelCall& call_;
  const int64_t whole_steps_;
  std::vector<char> copies_;  // [panel_count][16][48][2]
};

// Fetches what the step after next reads: a tile's loads alone do not keep enough of them under way.
SEXTANT_TARGET_AMX inline void PrefetchWeights(const char* w) {
  for (int64_t i = 0; i < kPanelStepBytes; i += 64) _mm_prefetch(w + 2 * kPanelStepBytes + i, _MM_HINT_T0);
}
SEXTANT_TARGET_AMX inline void PrefetchRows(const RowBlocks::Block& block, int64_t step) {
  const char* x = reinterpret_cast<const char*>(block.Step(step + 2));
  for (int64_t r = 0; r < kTileRows; ++r) _mm_prefetch(x + r * block.stride_bytes, _MM_HINT_T0);
}

// Two blocks by one panel: tiles 0 to 2 and 3 to 5 sum, 6 holds rows, 7 weights.
SEXTANT_TARGET_AMX void TwoBlocks(const RowBlocks::Block& a, const RowBlocks::Block& b,
                                  const PanelSteps::Panel& panel, int64_t steps, float* a_out, float* b_out,
                                  int64_t out_stride_bytes) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t step = 0; step < steps; ++step) {
    const char* w = panel.Step(step);
    PrefetchWeights(w);
    PrefetchRows(a, step);
    PrefetchRows(b, step);
    _tile_loadd(7, w, kStepBytes);
    _tile_loadd(6, a.Step(step), a.stride_bytes);
    _tile_dpbf16ps(0, 6, 7);
    _tile_loadd(6, b.Step(step), b.stride_bytes);
    _tile_dpbf16ps(3, 6, 7);
    _tile_loadd(7, w + 64, kStepBytes);
    _tile_dpbf16ps(4, 6, 7);
    _tile_loadd(6, a.Step(step), a.stride_bytes);
    _tile_dpbf16ps(1, 6, 7);
    _tile_loadd(7, w + 128, kStepBytes);
    _tile_dpbf16ps(2, 6, 7);
    _tile_loadd(6, b.Step(step), b.stride_bytes);
    _tile_dpbf16ps(5, 6, 7);
  }
  _tile_stored(0, a_out, out_stride_bytes);
  _tile_stored(1, a_out + kTileOutputs, out_stride_bytes);
  _tile_stored(2, a_out + 2 * kTileOutputs, out_stride_bytes);
  _tile_stored(3, b_out, out_stride_bytes);
  _tile_stored(4, b_out + kTileOutputs, out_stride_bytes);
  _tile_stored(5, b_out + 2 * kTileOutputs, out_stride_bytes);
}

// One block by one panel: tiles 0 to 2 sum, 3 holds rows, 4 to 6 weights.
SEXTANT_TARGET_AMX void OneBlock(const RowBlocks::Block& a, const PanelSteps::Panel& panel, int64_t steps,
                                 float* out, int64_t out_stride_bytes) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  for (int64_t step = 0; step < steps; ++step) {
    const char* w = panel.Step(step);
    PrefetchWeights(w);
    _tile_loadd(3, a.Step(step), a.stride_bytes);
    _tile_loadd(4, w, kStepBytes);
    _tile_loadd(5, w + 64, kStepBytes);
    _tile_loadd(6, w + 128, kStepBytes);
    _tile_dpbf16ps(0, 3, 4);
    _tile_dpbf16ps(1, 3, 5);
    _tile_dpbf16ps(2, 3, 6);
  }
  _tile_stored(0, out, out_stride_bytes);
  _tile_stored(1, out + kTileOutputs, out_stride_bytes);
  _tile_stored(2, out + 2 * kTileOutputs, out_stride_bytes);
}

SEXTANT_TARGET_AMX void Configure() { _tile_loadconfig(&kTileConfig); }

SEXTANT_TARGET_AMX void Release() { _tile_release(); }

}  // namespace

void PanelsBF16Amx(const PanelCall& call) {
  if (call.rows <= kAmxRowsWithoutTiles) return RowsBF16Amx(call);
  const RowBlocks blocks(call);
  const PanelSteps panels(call);
  const int64_t steps = (call.cols + kStepCols - 1) / kStepCols;
  const int64_t stride_bytes = call.out_stride * static_cast<int64_t>(sizeof(float));
  alignas(64) float padded[kTileRows][kPanel];
  Configure();
  for (int64_t p = 0; p < call.panel_count; ++p) {
    for (int64_t b = 0; b < blocks.count(); ++b) {
      float* out = call.out + b * kTileRows * call.out_stride + p * kPanel;
      if (b + 1 < blocks.count() && blocks.Rows(b + 1) == kTileRows) {
        TwoBlocks(blocks[b], blocks[b + 1], panels[p], steps, out, out + kTileRows * call.out_stride,
                  stride_bytes);
        ++b;
      } else if (blocks.Rows(b) == kTileRows) {
        OneBlock(blocks[b], panels[p], steps, out, stride_bytes);
      } else {
        OneBlock(blocks[b], panels[p], steps, padded[0], sizeof padded[0]);
        for (int64_t r = 0; r < blocks.Rows(b); ++r)
          std::memcpy(out + r * call.out_stride, padded[r], sizeof padded[r]);
      }
    }
  }
  Release();
}

}  // namespace sextant::cpu
