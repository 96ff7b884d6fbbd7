// The plan channel of a group whose ranks are on several hosts.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/collective/frame_link.h"
#include "common/collective/plan_channel.h"
#include "common/collective/tcp_socket.h"

namespace sextant {

struct TcpGroup {
  int rank = 0;
  int size = 1;
  int64_t epoch = 0;
  std::string token = {};
  HostPort leader = {};  // where rank 0 listens for the others
  absl::Duration form_timeout = absl::Seconds(60);
  FrameLinkOptions link = {};
};

// A star: the leader has a connection to every other rank. A broadcast travels in pieces, of which a rank may
// have kWindow not yet taken; the leader waits for room. A rank that leaves, falls silent or aborts ends the
// channel on the leader, which tells the others.
class TcpPlanChannel final : public PlanChannel {
 public:
  static constexpr int64_t kPieceBytes = 64 << 10;
  static constexpr int kWindow = 8;
  // No plan is larger; a peer that sends more is lost.
  static constexpr int64_t kMaxMessageBytes = int64_t{256} << 20;

  // Rank 0 listens at group.leader, or on `listener` if it is given, until all others have come; they connect
  // again and again until they are let in. UNAVAILABLE / GROUP_LOST when the group is not complete within
  // form_timeout; PERMISSION_DENIED / GROUP_TOKEN when tokens differ; PORT_TAKEN. A stranger, another epoch
  // and a rank that is there already are refused, logged and do not end the forming.
  static absl::StatusOr<std::unique_ptr<TcpPlanChannel>> Form(const TcpGroup& group,
                                                              TcpSocket* listener = nullptr);
  // What was broadcast still reaches ranks that are there.
  ~TcpPlanChannel() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status Broadcast(absl::string_view bytes, absl::Duration timeout) override;
  absl::StatusOr<std::string> Receive(absl::Duration timeout) override;
  void Report(ReportWord word, int64_t value) override;
  int64_t Reported(int rank, ReportWord word) const override;
  void Abort() override;
  bool aborted() const override;

 protected:
  absl::StatusOr<int64_t> AwaitReported(int rank, ReportWord word, int64_t least,
                                        const SteadyDeadline& deadline) const override;

 private:
  struct Member {
    uint64_t taken = 0;  // pieces
    int64_t reports[kReportWordCount] = {};
  };
  struct Piece {
    std::string bytes;
    bool last = false;
  };

  explicit TcpPlanChannel(const TcpGroup& group);
  absl::Status Gather(const TcpGroup& group, TcpSocket& listener);
  absl::Status Join(const TcpGroup& group);
  absl::Status OnFrame(int peer, const Frame& frame);
  absl::Status TakeReport(int peer, const Frame& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnLost(int peer, const absl::Status& why);
  void SendToAll(const std::string& frame, int slot);
  // Waits until something may have changed; false once the deadline is over.
  bool AwaitChange(const SteadyDeadline& deadline) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether every rank has room for one more piece.
  bool HasRoom() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const int rank_;
  const int size_;
  mutable absl::Mutex mutex_;
  mutable absl::CondVar changed_;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Member> members_ ABSL_GUARDED_BY(mutex_);  // [size]
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;            // pieces broadcast
  uint64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;           // pieces received
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mutex_);     // at most kWindow
  // Last: its thread uses the rest.
  std::unique_ptr<FrameLink> link_;
};

}  // namespace sextant
