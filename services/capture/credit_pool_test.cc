// Floors, lending and the ways in which credit comes back.
#include "services/capture/credit_pool.h"

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

CaptureId Id(char name) { return *CaptureId::FromBytes(std::string(16, name)); }

TEST(CreditPool, GrantsWholePositionsUpToHalfTheBudgetAboveTheFloor) {
  CreditPool pool(100, ProtocolPolicy());
  ASSERT_TRUE(pool.Open(Id('a'), 12, 1000).ok());
  EXPECT_THAT(pool.Lend(), testing::IsEmpty()) << "nothing is lent before Attach";
  pool.Attach(Id('a'));
  EXPECT_THAT(pool.Lend(), testing::ElementsAre(Id('a')));
  // The floor and four positions out of the 50 bytes above floors.
  EXPECT_EQ(pool.granted_bytes(Id('a')), 12 * 5);
  pool.Free(Id('a'), 2);
  pool.Lend();
  EXPECT_EQ(pool.granted_bytes(Id('a')), 12 * 7);
  EXPECT_EQ(pool.outstanding_bytes(Id('a')), 12 * 5);
}

TEST(CreditPool, NeverGrantsMoreThanTheCaptureCanRecord) {
  CreditPool pool(100, ProtocolPolicy());
  ASSERT_TRUE(pool.Open(Id('a'), 10, 3).ok());
  pool.Attach(Id('a'));
  pool.Lend();
  pool.Free(Id('a'), 3);
  pool.Lend();
  EXPECT_EQ(pool.granted_bytes(Id('a')), 30);
}

TEST(CreditPool, ACaptureThatIsNeverDecodedLeavesOthersTheirFloor) {
  CreditPool pool(40, ProtocolPolicy());
  ASSERT_TRUE(pool.Open(Id('a'), 10, 1000).ok());
  pool.Attach(Id('a'));
  pool.Lend();
  EXPECT_EQ(pool.granted_bytes(Id('a')), 30);
  ASSERT_TRUE(pool.Open(Id('b'), 10, 1000).ok());
  pool.Attach(Id('b'));
  for (int position = 1; position <= 20; ++position) {
    pool.Lend();
    ASSERT_EQ(pool.granted_bytes(Id('b')), 10 * position);
    ASSERT_LE(pool.committed_bytes(), pool.budget_bytes());
    pool.Free(Id('b'), 1);
  }
}

TEST(CreditPool, LendsRoundRobin) {
  CreditPool pool(80, ProtocolPolicy());
  for (const char name : {'a', 'b', 'c'}) {
    ASSERT_TRUE(pool.Open(Id(name), 10, 1000).ok());
    pool.Attach(Id(name));
  }
  pool.Lend();
  // 3 floors and 4 positions above them: nobody has two more than another.
  int64_t least = 1000, most = 0;
  for (const char name : {'a', 'b', 'c'}) {
    least = std::min(least, pool.granted_bytes(Id(name)));
    most = std::max(most, pool.granted_bytes(Id(name)));
  }
  EXPECT_EQ(pool.total_outstanding_bytes(), 70);
  EXPECT_EQ(least, 20);
  EXPECT_EQ(most, 30);
}

TEST(CreditPool, RefusesWhatDoesNotFit) {
  CreditPool pool(40, ProtocolPolicy());
  EXPECT_EQ(ErrorReason(pool.Open(Id('a'), 21, 1)), "POSITION_TOO_BIG");
  ASSERT_TRUE(pool.Open(Id('a'), 15, 1).ok());
  const absl::Status full = pool.Open(Id('b'), 6, 1);
  EXPECT_EQ(ErrorReason(full), "CAPTURE_BUDGET");
  EXPECT_TRUE(ErrorRetryAfter(full).has_value());
  pool.Close(Id('a'));
  EXPECT_TRUE(pool.Open(Id('b'), 6, 1).ok());
}

TEST(CreditPool, SealAndCloseTakeCreditBack) {
  CreditPool pool(100, ProtocolPolicy());
  ASSERT_TRUE(pool.Open(Id('a'), 10, 1000).ok());
  pool.Attach(Id('a'));
  pool.Lend();
  EXPECT_EQ(pool.outstanding_bytes(Id('a')), 60);
  pool.Free(Id('a'), 1);
  pool.Seal(Id('a'), 3);
  EXPECT_EQ(pool.outstanding_bytes(Id('a')), 20);
  EXPECT_THAT(pool.Lend(), testing::IsEmpty()) << "a sealed capture needs no more";
  pool.Close(Id('a'));
  EXPECT_EQ(pool.total_outstanding_bytes(), 0);
  EXPECT_EQ(pool.committed_bytes(), 0);
}

}  // namespace
}  // namespace sextant
