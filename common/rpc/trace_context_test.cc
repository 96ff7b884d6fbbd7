// Tests of reading and making `traceparent`.
#include "common/rpc/trace_context.h"

#include "gtest/gtest.h"

namespace sextant {
namespace {

constexpr char kGood[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContext, ReadsWhatItWrites) {
  const auto context = ParseTraceparent(kGood);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(context->span_id, "b7ad6b7169203331");
  EXPECT_EQ(context->flags, "01");
  EXPECT_EQ(context->ToString(), kGood);
}

TEST(TraceContext, LaterVersionsAreReadAsFarAsTheyAreKnown) {
  const auto context =
      ParseTraceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-is-new");
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->ToString(), kGood) << "sent on as the version that is known";
  EXPECT_TRUE(ParseTraceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").has_value());
}

class BadTraceparent : public testing::TestWithParam<const char*> {};

TEST_P(BadTraceparent, IsNotRead) { EXPECT_FALSE(ParseTraceparent(GetParam()).has_value()); }

INSTANTIATE_TEST_SUITE_P(TraceContext, BadTraceparent,
                         testing::Values("", "00", "rubbish",
                                         "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                                         "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                                         "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
                                         "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                         "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                         "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
                                         "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                         "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                                         "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
                                         "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
                                         "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-011",
                                         "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n"));

TEST(TraceContext, NewOnesAreValidAndDiffer) {
  const TraceContext trace = NewTrace(), span = NewSpan(trace);
  EXPECT_TRUE(ParseTraceparent(trace.ToString()).has_value()) << trace.ToString();
  EXPECT_TRUE(ParseTraceparent(span.ToString()).has_value()) << span.ToString();
  EXPECT_EQ(trace.flags, "00");
  EXPECT_EQ(span.trace_id, trace.trace_id);
  EXPECT_NE(span.span_id, trace.span_id);
  EXPECT_NE(NewTrace().trace_id, trace.trace_id);
}

}  // namespace
}  // namespace sextant
