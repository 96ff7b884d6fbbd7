// Tests that what the gateway counts stays bounded and says what happened.
#include "services/gateway/gateway_metrics.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace sextant {
namespace {

using testing::HasSubstr;
using testing::Not;

class GatewayMetricsTest : public testing::Test {
 protected:
  std::string Text() { return prometheus::TextSerializer().Serialize(registry_->Collect()); }

  const std::shared_ptr<prometheus::Registry> registry_ = MakeMetricsRegistry("gateway");
  GatewayMetrics metrics_{*registry_};
};

TEST_F(GatewayMetricsTest, ErrorsAreToldApartByReasonUpToABound) {
  for (size_t i = 0; i < GatewayMetrics::kMaxReasons + 10; ++i) {
    const absl::Status error = MakeError(absl::StatusCode::kInternal, absl::StrCat("REASON_", i), "why");
    metrics_.Count("Generate", error, absl::Seconds(1));
  }
  const std::string text = Text();
  // One reason is there from the start.
  EXPECT_THAT(text, HasSubstr("sextant_gateway_errors_total{code=\"INTERNAL\",reason=\"REASON_0\"} 1"));
  EXPECT_THAT(text, HasSubstr("sextant_gateway_errors_total{code=\"INTERNAL\",reason=\"other\"} 11"));
  EXPECT_THAT(text, Not(HasSubstr(absl::StrCat("REASON_", GatewayMetrics::kMaxReasons - 1, "\""))));
  EXPECT_THAT(text, HasSubstr("sextant_gateway_refusal_seconds_count 0"));
}

TEST_F(GatewayMetricsTest, FailuresThatAreWatchedAreThereBeforeTheFirst) {
  const std::string text = Text();
  for (const char* code : {"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNKNOWN", "RESOURCE_EXHAUSTED"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("sextant_gateway_requests_total{code=\"", code,
                                             "\",method=\"Generate\"} 0")));
  }
}

TEST_F(GatewayMetricsTest, OnlyCallsTurnedAwayAreRefusals) {
  using absl::StatusCode;
  metrics_.Count("Generate", MakeError(StatusCode::kResourceExhausted, "TOO_MANY_CALLS", "full"),
                 absl::Milliseconds(1));
  metrics_.Count("Generate", MakeError(StatusCode::kResourceExhausted, "CAPTURE_STALLED", "no credit"),
                 absl::Seconds(30));
  metrics_.Count("Generate", absl::OkStatus(), absl::Seconds(2));
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("sextant_gateway_refusal_seconds_count 1"));
  EXPECT_THAT(text, HasSubstr("sextant_gateway_generate_duration_seconds_count 3"));
  EXPECT_THAT(text, HasSubstr("{code=\"RESOURCE_EXHAUSTED\",method=\"Generate\"} 2"));
}

}  // namespace
}  // namespace sextant
