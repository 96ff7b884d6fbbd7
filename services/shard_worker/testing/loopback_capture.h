// A capture service in the test's own process: talks to outboxes directly, grants credit as told, keeps every
// row.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "services/shard_worker/capture_outbox.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant {

// Serves any number of ranks, one thread each. Rows count as decoded as soon as they are in.
class LoopbackCapture {
 public:
  struct Position {
    std::string payload;
    int32_t target_id = 0;
    int rank = 0;
  };

  // `credit_positions`: how many positions may be outstanding.
  explicit LoopbackCapture(int64_t credit_positions) : credit_positions_(credit_positions) {}
  ~LoopbackCapture() { Stop(); }

  // REQUIRES: `outbox` outlives Stop.
  void Serve(CaptureOutbox& outbox, int rank) {
    absl::MutexLock lock(&mutex_);
    if (rank == 0) leader_ = &outbox;
    outbox.SetListener([this] {
      absl::MutexLock lock(&mutex_);
      ++news_;
      changed_.SignalAll();
    });
    threads_.emplace_back([this, &outbox, rank] { Run(outbox, rank); });
  }

  void Stop() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.SignalAll();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  std::map<int32_t, Position> positions(const std::string& capture) {
    absl::MutexLock lock(&mutex_);
    return captures_[capture].positions;
  }

 private:
  struct Capture {
    int64_t position_bytes = 0;
    int32_t sealed_count = -1;
    std::map<int32_t, Position> positions;
    std::map<int, int64_t> next_seq;  // by rank
  };

  void Run(CaptureOutbox& outbox, int rank) {
    outbox.OnConnecting();
    while (true) {
      int64_t seen;
      {
        absl::MutexLock lock(&mutex_);
        if (stopping_) return;
        seen = news_;
      }
      while (const auto message = outbox.Next()) Take(*message, outbox, rank);
      const absl::Time due = outbox.NextDue();
      absl::MutexLock lock(&mutex_);
      while (news_ == seen && !stopping_ && !changed_.WaitWithDeadline(&mutex_, due)) {
      }
    }
  }

  void Take(const sextant::internal::v1::RankMessage& message, CaptureOutbox& outbox, int rank) {
    std::vector<sextant::internal::v1::RankReply> replies, leader_replies;
    CaptureOutbox* leader;
    {
      absl::MutexLock lock(&mutex_);
      leader = leader_;
      if (message.has_hello()) replies.emplace_back().mutable_hello();
      if (message.has_attach()) {
        captures_[message.attach().capture()].position_bytes = message.attach().position_bytes();
        Grant(message.attach().capture(), leader_replies);
      }
      if (message.has_chunk()) TakeChunk(message.chunk(), rank, replies, leader_replies);
      if (message.has_seal()) {
        captures_[message.seal().capture()].sealed_count = message.seal().position_count();
        CheckComplete(message.seal().capture(), leader_replies);
      }
      if (message.has_end())
        leader_replies.emplace_back().mutable_gone()->set_capture(message.end().capture());
    }
    for (const auto& reply : replies) outbox.OnReply(reply);
    for (const auto& reply : leader_replies) leader->OnReply(reply);
  }

  void TakeChunk(const sextant::internal::v1::Chunk& chunk, int rank,
                 std::vector<sextant::internal::v1::RankReply>& replies,
                 std::vector<sextant::internal::v1::RankReply>& leader_replies)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Capture& capture = captures_[chunk.capture()];
    EXPECT_EQ(chunk.seq(), capture.next_seq[rank]++);
    EXPECT_EQ(chunk.crc32(),
              crc32_z(0, reinterpret_cast<const Bytef*>(chunk.data().data()), chunk.data().size()));
    EXPECT_EQ(static_cast<int64_t>(chunk.data().size()), chunk.positions_size() * capture.position_bytes);
    for (int i = 0; i < chunk.positions_size(); ++i) {
      Position position = {chunk.data().substr(i * capture.position_bytes, capture.position_bytes),
                           chunk.target_ids(i), rank};
      EXPECT_TRUE(capture.positions.emplace(chunk.positions(i), std::move(position)).second) << "sent twice";
    }
    auto& ack = *replies.emplace_back().mutable_ack();
    ack.set_capture(chunk.capture());
    ack.set_next_seq(chunk.seq() + 1);
    Grant(chunk.capture(), leader_replies);
    CheckComplete(chunk.capture(), leader_replies);
  }

  void Grant(const std::string& id, std::vector<sextant::internal::v1::RankReply>& replies)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Capture& capture = captures_[id];
    auto& credit = *replies.emplace_back().mutable_credit();
    credit.set_capture(id);
    credit.set_granted_total_bytes((static_cast<int64_t>(capture.positions.size()) + credit_positions_) *
                                   capture.position_bytes);
  }

  void CheckComplete(const std::string& id, std::vector<sextant::internal::v1::RankReply>& replies)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Capture& capture = captures_[id];
    if (capture.sealed_count != static_cast<int32_t>(capture.positions.size())) return;
    replies.emplace_back().mutable_sealed()->set_capture(id);
  }

  const int64_t credit_positions_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t news_ ABSL_GUARDED_BY(mutex_) = 0;
  CaptureOutbox* leader_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::map<std::string, Capture> captures_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace sextant
