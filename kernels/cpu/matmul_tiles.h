// The panel product per instruction set and dtype; MatMulPanels chooses among them.
#pragma once

#include <cstdint>

namespace sextant::cpu {

// Bytes of a panel per step of the inner loop: 48 floats, or 48 pairs of bf16.
inline constexpr int64_t kStepBytes = 192;

// The arguments of MatMulPanels, unpacked.
struct PanelCall {
  const void* x = nullptr;  // [rows, cols]
  int64_t x_stride = 0;     // elements
  int64_t rows = 0;
  const char* panels = nullptr;  // [panel_count], panel_bytes each
  int64_t panel_bytes = 0;
  int64_t panel_count = 0;
  int64_t cols = 0;
  float* out = nullptr;  // [rows, panel_count * 48]
  int64_t out_stride = 0;
};

void PanelsF32Avx2(const PanelCall& call);
void PanelsBF16Avx2(const PanelCall& call);
void PanelsF32Avx512(const PanelCall& call);
void PanelsBF16Avx512(const PanelCall& call);
void PanelsBF16Amx(const PanelCall& call);

// Up to this many rows, tiles would wait for memory longer than vectors do.
inline constexpr int64_t kAmxRowsWithoutTiles = 2;
// The part of PanelsBF16Amx for so few rows.
void RowsBF16Amx(const PanelCall& call);

}  // namespace sextant::cpu
