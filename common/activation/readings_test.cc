// Tests of payload layout and of cutting and joining readings.
#include "common/activation/readings.h"

#include <gtest/gtest.h>

#include "common/activation/row_layout.h"
#include "common/base/error.h"

namespace sextant {
namespace {

using sextant::internal::v1::CaptureSpec;
using sextant::v1::Readings;

CaptureSpec Spec(bool tracked) {
  CaptureSpec spec;
  for (const int layer : {0, 1, 2}) {
    auto* row = spec.add_rows();
    row->set_site(sextant::v1::SITE_RESID_POST);
    row->set_layer(layer);
  }
  spec.set_dtype(sextant::v1::DTYPE_BF16);
  spec.set_hidden_size(8);
  spec.mutable_lens()->add_row_indices(0);
  spec.mutable_lens()->add_row_indices(1);
  spec.mutable_lens()->set_final_row_index(2);
  spec.mutable_lens()->set_top_k(2);
  spec.mutable_lens()->set_tracked(tracked);
  return spec;
}

// Consistent readings of the given positions; every byte tells its position apart.
Readings Make(std::vector<int> positions, bool tracked) {
  Readings readings;
  for (const int layer : {0, 1}) {
    readings.add_sites(sextant::v1::SITE_RESID_POST);
    readings.add_layers(layer);
  }
  readings.set_top_k(2);
  readings.set_target_count(1);
  for (const int p : positions) {
    const char fill = static_cast<char>('a' + p);
    readings.add_positions(p);
    readings.mutable_top_ids()->append(16, fill);
    readings.mutable_top_logprobs()->append(16, fill);
    readings.mutable_entropy_nats()->append(8, fill);
    readings.mutable_kl_final_nats()->append(8, fill);
    readings.mutable_target_ids()->append(4, fill);
    readings.mutable_target_logprobs()->append(8, fill);
    readings.mutable_target_ranks()->append(8, fill);
    readings.mutable_prediction_depths()->append(4, fill);
    if (tracked) {
      readings.add_tracked_counts(p + 1);
      readings.mutable_tracked_ids()->append(4 * (p + 1), fill);
      readings.mutable_tracked_logprobs()->append(8 * (p + 1), fill);
    }
  }
  return readings;
}

TEST(RowLayoutTest, RowsThenScales) {
  CaptureSpec spec = Spec(false);
  EXPECT_TRUE(ValidateCaptureSpec(spec).ok());
  EXPECT_EQ(PositionBytes(spec), 3 * 16);
  spec.set_has_scales(true);
  EXPECT_EQ(PositionBytes(spec), 3 * 16 + 12);
  EXPECT_EQ(RowOffset(spec, 2), 32);
  EXPECT_EQ(ScaleOffset(spec, 1), 52);
  EXPECT_EQ(FindRow(spec, sextant::v1::SITE_RESID_POST, 1), 1);
  EXPECT_EQ(FindRow(spec, sextant::v1::SITE_RESID_PRE, 1), std::nullopt);
}

TEST(RowLayoutTest, RefusesRepeatedRowsAndWildIndices) {
  CaptureSpec spec = Spec(false);
  spec.mutable_rows(1)->set_layer(0);
  EXPECT_EQ(ErrorReason(ValidateCaptureSpec(spec)), "CAPTURE_SPEC");
  spec = Spec(false);
  spec.mutable_lens()->set_final_row_index(3);
  EXPECT_EQ(ErrorReason(ValidateCaptureSpec(spec)), "CAPTURE_SPEC");
}

TEST(ReadingsTest, CutAndJoinAreInverse) {
  for (const bool tracked : {false, true}) {
    const Readings whole = Make({0, 3, 1}, tracked);
    ASSERT_TRUE(ValidateReadings(whole, Spec(tracked)).ok());
    Readings joined;
    for (int i = 0; i < 3; ++i) AppendReadings(ReadingsAt(whole, i), joined);
    EXPECT_EQ(joined.SerializeAsString(), whole.SerializeAsString());
    EXPECT_EQ(ReadingsAt(whole, 1).SerializeAsString(), Make({3}, tracked).SerializeAsString());
  }
}

TEST(ReadingsTest, BoundHolds) {
  const CaptureSpec spec = Spec(true);
  EXPECT_LE(static_cast<int64_t>(Make({3}, true).ByteSizeLong()), ReadingBytesBound(spec));
}

TEST(ReadingsTest, RefusesWrongShapes) {
  const CaptureSpec spec = Spec(true);
  Readings readings = Make({0, 1}, true);
  readings.mutable_top_ids()->pop_back();
  EXPECT_EQ(ErrorReason(ValidateReadings(readings, spec)), "READINGS_SHAPE");
  readings = Make({0, 1}, true);
  readings.set_tracked_counts(0, 2);
  EXPECT_EQ(ErrorReason(ValidateReadings(readings, spec)), "READINGS_SHAPE");
  readings = Make({0, 1}, true);
  readings.set_layers(0, 5);
  EXPECT_EQ(ErrorReason(ValidateReadings(readings, spec)), "READINGS_SHAPE");
}

}  // namespace
}  // namespace sextant
