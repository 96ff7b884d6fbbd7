// The plain root-mean-square norm: the oracle of the others.
#include "kernels/reference/rmsnorm.h"

#include <cmath>
#include <limits>

namespace sextant::reference {

void RmsNorm(const Tensor& in, const Tensor& weight, float eps, const Tensor& out) {
  for (int64_t r = 0; r < in.rows; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < in.cols; ++i) squares += double{in.At(r, i)} * in.At(r, i);
    double rms = std::sqrt(squares / static_cast<double>(in.cols) + eps);
    // Backends square in F32, and zeros would look like an answer.
    if (squares > std::numeric_limits<float>::max()) rms = std::numeric_limits<double>::quiet_NaN();
    for (int64_t i = 0; i < in.cols; ++i)
      out.Set(r, i, static_cast<float>(in.At(r, i) / rms * weight.At(0, i)));
  }
}

}  // namespace sextant::reference
