// CUDA's warp matrix operations as far as device code here uses them: bf16 tiles of 16x16x16, summed in F32.
//
// Loads and stores are each lane's own and order nothing, so that a missing __syncwarp shows; mma_sync is a
// meeting of the warp. Which element a lane holds is deliberately no hardware's layout.
#pragma once

#include "kernels/cuda/emulation/device_language.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int m, int n, int k, typename T, typename Layout = void>
struct fragment {
  static_assert(m == 16 && n == 16 && k == 16, "the emulation has tiles of 16x16x16 only");
  static constexpr int num_elements = 8;
  T x[num_elements];
};

namespace detail {

// Index in the 16x16 matrix of the element that `lane` holds at `place`.
inline int ElementOf(unsigned lane, int place) {
  return ((static_cast<int>(lane) * 8 + place) * 77 % 256) ^ 13;
}

template <typename T>
void CheckPointer(const T* pointer, unsigned stride) {
  if (reinterpret_cast<uintptr_t>(pointer) % 32 != 0) {
    sextant::emulation::Fail("wmma: pointer %p is not aligned to 32 bytes",
                             static_cast<const void*>(pointer));
  }
  if (stride * sizeof(T) % 16 != 0) {
    sextant::emulation::Fail("wmma: leading dimension %u is not a multiple of 16 bytes", stride);
  }
}

template <typename Fragment, typename T>
void Load(Fragment& out, const T* in, unsigned stride, bool row_major_layout) {
  CheckPointer(in, stride);
  for (int i = 0; i < Fragment::num_elements; ++i) {
    const int element = ElementOf(sextant::emulation::Lane(), i);
    const unsigned row = static_cast<unsigned>(element) / 16, col = static_cast<unsigned>(element) % 16;
    out.x[i] = row_major_layout ? in[row * stride + col] : in[col * stride + row];
  }
}

template <typename D, typename A, typename B, typename C>
struct Operands {
  D* d;
  const A* a;
  const B* b;
  const C* c;

  // `lanes` [32] are the lanes' Operands.
  static void Multiply(const uint64_t* lanes) {
    float a[256], b[256], d[256];
    for (unsigned lane = 0; lane < 32; ++lane) {
      const auto& self = *reinterpret_cast<const Operands*>(lanes[lane]);
      for (int i = 0; i < 8; ++i) {
        const int element = ElementOf(lane, i);
        a[element] = __bfloat162float(self.a->x[i]);
        b[element] = __bfloat162float(self.b->x[i]);
        d[element] = self.c->x[i];
      }
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < 16; ++k) {
        for (int col = 0; col < 16; ++col) d[row * 16 + col] += a[row * 16 + k] * b[k * 16 + col];
      }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      const auto& self = *reinterpret_cast<const Operands*>(lanes[lane]);
      for (int i = 0; i < 8; ++i) self.d->x[i] = d[ElementOf(lane, i)];
    }
  }
};

}  // namespace detail

template <typename Use, typename T, typename Layout>
void fill_fragment(fragment<Use, 16, 16, 16, T, Layout>& out, const std::type_identity_t<T>& value) {
  for (T& element : out.x) element = value;
}
template <typename Use, typename T>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, row_major>& out, const T* in, unsigned stride) {
  detail::Load(out, in, stride, true);
}
template <typename Use, typename T>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, col_major>& out, const T* in, unsigned stride) {
  detail::Load(out, in, stride, false);
}
template <typename T>
void load_matrix_sync(fragment<accumulator, 16, 16, 16, T>& out, const T* in, unsigned stride,
                      layout_t layout) {
  detail::Load(out, in, stride, layout == mem_row_major);
}
template <typename T>
void store_matrix_sync(T* out, const fragment<accumulator, 16, 16, 16, T>& in, unsigned stride,
                       layout_t layout) {
  detail::CheckPointer(out, stride);
  for (int i = 0; i < 8; ++i) {
    const int element = detail::ElementOf(sextant::emulation::Lane(), i);
    const unsigned row = static_cast<unsigned>(element) / 16, col = static_cast<unsigned>(element) % 16;
    out[layout == mem_row_major ? row * stride + col : col * stride + row] = in.x[i];
  }
}
template <typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& d,
              const fragment<matrix_a, 16, 16, 16, __nv_bfloat16, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, __nv_bfloat16, LayoutB>& b,
              const fragment<accumulator, 16, 16, 16, float>& c, SEXTANT_SITE) {
  using Lane = detail::Operands<
      fragment<accumulator, 16, 16, 16, float>, fragment<matrix_a, 16, 16, 16, __nv_bfloat16, LayoutA>,
      fragment<matrix_b, 16, 16, 16, __nv_bfloat16, LayoutB>, fragment<accumulator, 16, 16, 16, float>>;
  const Lane operands{&d, &a, &b, &c};
  sextant::emulation::Meet(~0u, reinterpret_cast<uint64_t>(&operands),
                           sextant::emulation::WarpOperation::kMatrix, site, Lane::Multiply);
}

}  // namespace nvcuda::wmma
