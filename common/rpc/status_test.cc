// Tests that reasons, retry delays and messages survive the wire's form of a status.
#include "common/rpc/status.h"

#include "common/base/error.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

TEST(Status, RoundTripKeepsCodeMessageReasonAndRetry) {
  const absl::Status status = MakeError(absl::StatusCode::kResourceExhausted, "CAPTURE_BUDGET",
                                        "wait, or capture fewer layers", absl::Milliseconds(1500));
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
  EXPECT_EQ(back.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(back.message(), "wait, or capture fewer layers");
  EXPECT_EQ(ErrorReason(back), "CAPTURE_BUDGET");
  EXPECT_EQ(ErrorRetryAfter(back), absl::Milliseconds(1500));
}

TEST(Status, OkAndPlainStatusesCarryNoDetails) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("no")).error_details(), "");
}

TEST(Status, RubbishDetailsAreDropped) {
  const absl::Status status = FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, "m", "\xff\xff\xff"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ErrorReason(status), "");
}

TEST(Status, LongMessagesAreCutBetweenCharacters) {
  std::string message = "x";
  for (int i = 0; i < 2000; ++i) message += "\xc3\xa9";  // é
  const grpc::Status status = ToGrpcStatus(absl::InternalError(message));
  EXPECT_EQ(status.error_message().size(), 2047u);
  EXPECT_EQ(status.error_message().back(), '\xa9');
}

}  // namespace
}  // namespace sextant
