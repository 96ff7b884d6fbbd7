// What is cut out of a position for a decoder, and what stands in for readings that will never come.
#include "services/capture/lease_layout.h"

#include "common/activation/readings.h"
#include "common/activation/row_layout.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/capture/readings_log.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {
namespace {

using ::testing::ElementsAre;

// Five rows of two bytes and a scale each; the lens reports rows 3 and 1, the final row is 4.
internal::v1::CaptureSpec FiveRows() {
  internal::v1::CaptureSpec spec;
  for (int layer = 0; layer < 5; ++layer) {
    spec.add_rows()->set_site(layer == 1 ? sextant::v1::SITE_ATTN_OUT : sextant::v1::SITE_RESID_POST);
    spec.mutable_rows(layer)->set_layer(layer);
  }
  spec.set_dtype(sextant::v1::DTYPE_BF16);
  spec.set_hidden_size(1);
  spec.set_has_scales(true);
  spec.mutable_lens()->add_row_indices(3);
  spec.mutable_lens()->add_row_indices(1);
  spec.mutable_lens()->set_final_row_index(4);
  spec.mutable_lens()->set_top_k(3);
  spec.mutable_lens()->set_normalization(sextant::v1::NORMALIZATION_RESIDUAL);
  return spec;
}

constexpr char kPayload[] = "aabbccddeeAAAABBBBCCCCDDDDEEEE";

TEST(LeaseLayout, CutsRowsAndScalesAndPointsIntoWhatIsLeft) {
  const LeaseLayout layout(FiveRows());
  std::string out;
  layout.Append(kPayload, out);
  EXPECT_EQ(out, "bbddeeBBBBDDDDEEEE");
  EXPECT_EQ(layout.position_bytes(), static_cast<int64_t>(out.size()));
  EXPECT_EQ(PositionBytes(layout.spec()), layout.position_bytes());
  EXPECT_THAT(layout.spec().lens().row_indices(), ElementsAre(1, 0));
  EXPECT_EQ(layout.spec().lens().final_row_index(), 2);
  EXPECT_EQ(layout.spec().rows(0).layer(), 1);
  EXPECT_TRUE(ValidateCaptureSpec(layout.spec()).ok());
}

TEST(LeaseLayout, LeavesScalesOutWhereNobodyUsesThem) {
  internal::v1::CaptureSpec spec = FiveRows();
  spec.mutable_lens()->set_normalization(sextant::v1::NORMALIZATION_OWN);
  const LeaseLayout layout(spec);
  std::string out;
  layout.Append(kPayload, out);
  EXPECT_EQ(out, "bbddee");
  EXPECT_FALSE(layout.spec().has_scales());
}

TEST(FailedReadings, HaveTheShapeOfRealOnes) {
  for (const bool tracked : {false, true}) {
    internal::v1::CaptureSpec spec = FiveRows();
    spec.mutable_lens()->set_tracked(tracked);
    const sextant::v1::Readings readings = FailedReadings(spec, 7, 42);
    EXPECT_TRUE(ValidateReadings(readings, spec).ok()) << ValidateReadings(readings, spec);
    EXPECT_LE(static_cast<int64_t>(readings.ByteSizeLong()), ReadingBytesBound(spec));
  }
}

TEST(ReadingsLog, JoinsEntriesUpToTheSizeAskedFor) {
  ReadingsLog log(nullptr);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(log.Append(TestReadings({i}, 1), i == 4).ok());
  EXPECT_EQ(log.failed_count(), 1);
  EXPECT_THAT(log.Batch(1, 1 << 20)->positions(), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(log.Batch(3, 1)->positions(), ElementsAre(3)) << "one entry, however big";
  const int64_t two = 2 * TestReadings({0}, 1).ByteSizeLong();
  EXPECT_THAT(log.Batch(0, two)->positions(), ElementsAre(0, 1));
}

}  // namespace
}  // namespace sextant::testing
