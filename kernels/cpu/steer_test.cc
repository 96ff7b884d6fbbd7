// Compares every steering operator with the oracle, on both dtypes, and checks the cases without a direction.
#include "kernels/cpu/steer.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "kernels/reference/steer.h"

namespace sextant {
namespace {

constexpr SteerOperator kOperators[] = {SteerOperator::kAdd, SteerOperator::kAddScaled,
                                        SteerOperator::kAblate, SteerOperator::kClamp, SteerOperator::kSet};

// An activation of random numbers that both dtypes hold exactly.
class Activation {
 public:
  Activation(DType dtype, int64_t rows, int64_t hidden) : dtype_(dtype), rows_(rows), hidden_(hidden) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0, 2);
    for (int64_t i = 0; i < rows * hidden; ++i) {
      narrow_.push_back(ToBF16(normal(random)));
      wide_.push_back(ToFloat(narrow_.back()));
    }
  }
  Tensor View() {
    return dtype_ == DType::kF32 ? Tensor::Of(wide_.data(), dtype_, rows_, hidden_)
                                 : Tensor::Of(narrow_.data(), dtype_, rows_, hidden_);
  }
  std::vector<double> Row(int64_t row) const {
    std::vector<double> values;
    for (int64_t i = row * hidden_; i < (row + 1) * hidden_; ++i) {
      const auto at = static_cast<size_t>(i);
      values.push_back(dtype_ == DType::kF32 ? wide_[at] : ToFloat(narrow_[at]));
    }
    return values;
  }
  // How far rounding may take a result of size `magnitude`: a few F32 operations on numbers of up to 2^4
  // times a row's typical one, and one rounding to bf16.
  double Tolerance(double magnitude) const {
    return 0x1p-17 + (dtype_ == DType::kBF16 ? std::abs(magnitude) * 0x1p-8 : std::abs(magnitude) * 0x1p-22);
  }

 private:
  DType dtype_;
  int64_t rows_, hidden_;
  std::vector<float> wide_;
  std::vector<bf16> narrow_;
};

std::vector<float> Direction(int64_t hidden, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> direction(static_cast<size_t>(hidden));
  for (float& value : direction) value = normal(random);
  return direction;
}

SteerEntry Entry(SteerOperator op, std::vector<float>& direction, std::vector<int32_t> rows) {
  SteerEntry entry;
  entry.op = op;
  entry.strength = 0.75f;
  entry.low = -0.5f;
  entry.high = 0.25f;
  entry.direction = Tensor::Of(direction.data(), DType::kF32, 1, static_cast<int64_t>(direction.size()));
  entry.rows = std::move(rows);
  return entry;
}

bool IsNear(const std::vector<double>& got, const std::vector<double>& want, const Activation& activation) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (!(std::abs(got[i] - want[i]) <= activation.Tolerance(want[i]))) return false;
  }
  return true;
}

TEST(SteerTest, EveryOperatorMatchesReference) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t hidden : {1, 7, 576}) {
      for (SteerOperator op : kOperators) {
        for (bool preserve_norm : {false, true}) {
          Activation activation(dtype, 4, hidden);
          const Activation before = activation;
          std::vector<float> direction = Direction(hidden, 3);
          SteerEntry entry = Entry(op, direction, {0, 3});
          entry.preserve_norm = preserve_norm;
          cpu::Steer(BestCpuIsa(), activation.View(), {entry});
          for (int64_t row : {0, 3}) {
            EXPECT_TRUE(IsNear(activation.Row(row),
                               reference::Steer(entry, direction.data(), before.Row(row)), activation))
                << "operator " << static_cast<int>(op) << " hidden " << hidden << " row " << row;
          }
          for (int64_t row : {1, 2}) EXPECT_EQ(activation.Row(row), before.Row(row));
        }
      }
    }
  }
}

// The comparison can fail: no operator passes for another one, nor one strength or sign for another.
TEST(SteerTest, OperatorsDoNotPassForEachOther) {
  for (SteerOperator op : kOperators) {
    Activation activation(DType::kBF16, 1, 576);
    const Activation before = activation;
    std::vector<float> direction = Direction(576, 3);
    const SteerEntry entry = Entry(op, direction, {0});
    cpu::Steer(BestCpuIsa(), activation.View(), {entry});
    for (SteerOperator other : kOperators) {
      SteerEntry wrong = Entry(other, direction, {0});
      const bool same = other == op;
      EXPECT_EQ(
          IsNear(activation.Row(0), reference::Steer(wrong, direction.data(), before.Row(0)), activation),
          same)
          << static_cast<int>(op) << " as " << static_cast<int>(other);
    }
    SteerEntry flipped = entry;
    flipped.strength = -entry.strength;
    flipped.low = -2, flipped.high = -1;
    if (op == SteerOperator::kSet) continue;
    EXPECT_FALSE(
        IsNear(activation.Row(0), reference::Steer(flipped, direction.data(), before.Row(0)), activation));
  }
}

TEST(SteerTest, ZeroDirectionsAndRowsGiveNumbers) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (SteerOperator op : kOperators) {
      Activation activation(dtype, 2, 64);
      const Activation before = activation;
      std::vector<float> zero(64, 0.0f);
      SteerEntry entry = Entry(op, zero, {0});
      entry.preserve_norm = true;
      cpu::Steer(BestCpuIsa(), activation.View(), {entry});
      const bool set = op == SteerOperator::kSet;
      // A row set to zeros has no direction in which to get its norm back.
      EXPECT_EQ(activation.Row(0), set ? std::vector<double>(64, 0.0) : before.Row(0))
          << static_cast<int>(op);

      std::vector<float> direction = Direction(64, 1);
      SteerEntry clear = Entry(SteerOperator::kSet, zero, {1});
      SteerEntry next = Entry(op, direction, {1});
      next.preserve_norm = true;
      cpu::Steer(BestCpuIsa(), activation.View(), {clear, next});
      for (double value : activation.Row(1))
        EXPECT_EQ(value, 0) << static_cast<int>(op);  // the norm it had: 0
    }
  }
}

TEST(SteerTest, EntriesRunInOrderOnTheSameRow) {
  Activation activation(DType::kF32, 1, 32);
  std::vector<float> first = Direction(32, 1), second = Direction(32, 2);
  cpu::Steer(BestCpuIsa(), activation.View(),
             {Entry(SteerOperator::kSet, first, {0}), Entry(SteerOperator::kAdd, second, {0, 0})});
  for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(activation.Row(0)[i], first[i] + 1.5 * second[i], 0x1p-20);
}

TEST(SteerTest, AblationLeavesNothingAndClampLeavesTheBound) {
  Activation activation(DType::kF32, 2, 576);
  std::vector<float> direction = Direction(576, 1);
  SteerEntry ablate = Entry(SteerOperator::kAblate, direction, {0});
  ablate.strength = 1;
  SteerEntry clamp = Entry(SteerOperator::kClamp, direction, {1});
  clamp.low = clamp.high = 3;
  cpu::Steer(BestCpuIsa(), activation.View(), {ablate, clamp});
  for (int64_t row : {0, 1}) {
    double dot = 0, norm = 0;
    for (size_t i = 0; i < 576; ++i) {
      dot += activation.Row(row)[i] * direction[i];
      norm += static_cast<double>(direction[i]) * direction[i];
    }
    // 576 roundings of numbers about 2, each 2^-24 of it and of random sign.
    EXPECT_NEAR(dot / std::sqrt(norm), row == 0 ? 0 : 3, 1e-5);
  }
}

TEST(SteerTest, RowsFollowTheStride) {
  std::vector<float> wide(3 * 10, 1.0f), direction(4, 2.0f);
  Tensor view = Tensor::Of(wide.data(), DType::kF32, 3, 10).Cols(0, 4);
  cpu::Steer(BestCpuIsa(), view, {Entry(SteerOperator::kSet, direction, {1})});
  for (size_t i = 0; i < wide.size(); ++i) EXPECT_EQ(wide[i], i >= 10 && i < 14 ? 2 : 1) << i;
}

}  // namespace
}  // namespace sextant
