// Tests that reason and retry delay survive in a status.
#include "common/base/error.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

TEST(ErrorTest, CarriesReasonAndRetryDelay) {
  const absl::Status status = MakeError(absl::StatusCode::kResourceExhausted, "CAPTURE_BUDGET", "try later",
                                        absl::Milliseconds(1500));
  EXPECT_EQ(ErrorReason(status), "CAPTURE_BUDGET");
  ASSERT_TRUE(ErrorRetryAfter(status).has_value());
  EXPECT_EQ(*ErrorRetryAfter(status), absl::Milliseconds(1500));
}

TEST(ErrorTest, PlainStatusHasNeither) {
  EXPECT_EQ(ErrorReason(absl::InternalError("x")), "");
  EXPECT_FALSE(ErrorRetryAfter(absl::InternalError("x")).has_value());
}

TEST(Error, TextShowsReasonAndNoPayloadBytes) {
  EXPECT_EQ(ErrorText(absl::OkStatus()), "OK");
  EXPECT_EQ(ErrorText(absl::NotFoundError("no")), "NOT_FOUND: no");
  EXPECT_EQ(ErrorText(MakeError(absl::StatusCode::kUnavailable, "PORT_TAKEN", "taken", absl::Seconds(1))),
            "UNAVAILABLE PORT_TAKEN: taken");
}

}  // namespace
}  // namespace sextant
