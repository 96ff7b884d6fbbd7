// Which fault a point of a stream comes after, and that no more is kept than is still open.
#include "kernels/cuda/faults.h"

#include <memory>

#include "gtest/gtest.h"

namespace sextant::cuda {
namespace {

const absl::Status kFirst = absl::InternalError("first"), kSecond = absl::InternalError("second");

class FaultsTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const auto& stream : {a_, b_, c_}) stream->Close();
  }
  std::shared_ptr<StreamFaults> Make() { return std::make_shared<StreamFaults>(mutex_); }
  // Work up to here; its number is the least that comes after it.
  static int64_t Work(StreamFaults& stream) {
    stream.Next();
    return stream.end();
  }

  const std::shared_ptr<absl::Mutex> mutex_ = std::make_shared<absl::Mutex>();
  const std::shared_ptr<StreamFaults> a_ = Make(), b_ = Make(), c_ = Make();
};

// Else it would be taken for the fault of one batch.
TEST(DeviceFaultTest, ALastingFaultIsInternalWhateverItWas) {
  for (const absl::Status& noted : {absl::ResourceExhaustedError("short"),
                                    absl::InvalidArgumentError("short"), absl::InternalError("short")}) {
    DeviceFault fault;
    EXPECT_EQ(fault.status(), absl::OkStatus());
    fault.Note(noted);
    fault.Note(kSecond);
    EXPECT_EQ(fault.status(), absl::InternalError("short"));
  }
}

TEST_F(FaultsTest, AFaultIsSeenBehindItOnly) {
  const int64_t before = Work(*a_), failed = a_->Next(), after = Work(*a_);
  a_->Fail(failed, kFirst);
  EXPECT_EQ(a_->Before(before), absl::OkStatus());
  EXPECT_EQ(a_->Before(failed), absl::OkStatus());
  EXPECT_EQ(a_->Before(after), kFirst);
}

// What is queued can fail at once, and what was queued before it later, when it runs.
TEST_F(FaultsTest, TheFirstInOrderCountsNotTheFirstHeardOf) {
  const int64_t early = a_->Next(), between = Work(*a_), late = a_->Next();
  a_->Fail(late, kSecond);
  a_->Fail(early, kFirst);
  EXPECT_EQ(a_->Before(between), kFirst);
  EXPECT_EQ(a_->Before(a_->end()), kFirst);
}

TEST_F(FaultsTest, WaitingTakesFaultsOverFromThePointWaitedFor) {
  const int64_t good = Work(*a_);
  b_->DependOn(a_, good);
  const int64_t first = Work(*b_), failed = a_->Next();
  b_->DependOn(a_, a_->end());
  const int64_t second = Work(*b_);
  c_->DependOn(b_, second);
  a_->Fail(failed, kFirst);
  EXPECT_EQ(b_->Before(first), absl::OkStatus());
  EXPECT_EQ(b_->Before(second), kFirst);
  EXPECT_EQ(c_->Before(Work(*c_)), kFirst);
}

TEST_F(FaultsTest, SettlingLosesNoFault) {
  const int64_t failed = a_->Next();
  b_->DependOn(a_, a_->end());
  const int64_t between = Work(*b_), own = b_->Next();
  a_->Fail(failed, kFirst);
  b_->Fail(own, kSecond);
  b_->Passed(b_->end());
  EXPECT_EQ(b_->dependency_count(), 0);
  EXPECT_EQ(b_->Before(between), kFirst) << "before the stream's own fault";
  EXPECT_EQ(b_->Before(b_->end()), kFirst);
}

// However a stream is watched: itself, what it waits for, or what waits for it.
TEST_F(FaultsTest, WhatHasRunIsKeptNoLonger) {
  for (const auto& watched : {a_, b_, c_}) {
    for (int i = 0; i < 100; ++i) {
      const int64_t start = Work(*a_);
      b_->DependOn(a_, start);
      c_->DependOn(b_, Work(*b_));
      a_->DependOn(c_, Work(*c_));
      watched->Passed(watched->end());
      EXPECT_LE(a_->dependency_count() + b_->dependency_count() + c_->dependency_count(), 3);
    }
    for (const auto& stream : {a_, b_, c_}) stream->Passed(stream->end());
  }
}

// Asked of streams that wait for each other in turns: two to the power of turns would never end.
TEST_F(FaultsTest, ManyTurnsThatNobodyWaitedForAreLookedThroughOnce) {
  const int64_t failed = a_->Next();
  for (int turn = 0; turn < 200; ++turn) {
    b_->DependOn(a_, a_->end());
    c_->DependOn(b_, b_->end());
    c_->DependOn(a_, a_->end());
    a_->DependOn(b_, b_->end());
    a_->DependOn(c_, c_->end());
  }
  EXPECT_EQ(c_->Before(c_->end()), absl::OkStatus());
  a_->Fail(failed, kFirst);
  EXPECT_EQ(c_->Before(c_->end()), kFirst);
}

TEST_F(FaultsTest, AClosedStreamsFaultOutlivesIt) {
  std::shared_ptr<StreamFaults> gone = Make();
  const std::weak_ptr<StreamFaults> watch = gone;
  const int64_t failed = gone->Next();
  b_->DependOn(gone, gone->end());
  gone->Fail(failed, kFirst);
  gone->Close();
  gone.reset();
  EXPECT_EQ(b_->Before(Work(*b_)), kFirst);
  b_->Passed(b_->end());
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(b_->Before(b_->end()), kFirst);
}

}  // namespace
}  // namespace sextant::cuda
