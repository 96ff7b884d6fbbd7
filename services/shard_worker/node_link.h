// How the supervisors of a group that spans hosts agree which epoch runs.
//
// A star around host 0. Every supervisor says, and repeats with each change, what it is doing; nobody gives
// orders that could be lost: host 0 says which epoch it wants, the others which one they run and which one
// has ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/collective/frame_link.h"
#include "common/collective/group_hello.h"

namespace sextant {

struct NodeState {
  int64_t epoch = 0;        // that runs, or on host 0 is wanted; 0: none
  int64_t ended_epoch = 0;  // the last one whose ranks have ended here
  int64_t restart_count = 0;
  bool refused = false;  // ranks cannot serve at all: everybody gives up
  bool leaving = false;  // asked to end: host 0 drains the group
};

// How often a host that waits for others says so again.
inline constexpr absl::Duration kNodeReminder = absl::Seconds(30);

struct NodeOptions {
  int node = 0;
  int node_count = 1;
  int group_size = 1;    // ranks of all hosts
  HostPort leader = {};  // where host 0 listens for the others
  std::string token = {};
  FrameLinkOptions link = {};
};

// Threads: any.
class NodeLink {
 public:
  // Host 0 listens; the others connect, again and again for as long as this lives. Errors: of listening.
  static absl::StatusOr<std::unique_ptr<NodeLink>> Start(const NodeOptions& options);
  // What was said last still leaves.
  ~NodeLink();

  // Readable after a peer's state may have changed, until ClearWake.
  int wake_fd() const { return wake_fd_; }
  void ClearWake();

  void SetState(const NodeState& state);
  // What the peer said last; nothing while it is away. Host 0 has peers 1..; the others have peer 0.
  std::optional<NodeState> StateOf(int node) const;
  // Whether any peer has ever said that its ranks cannot serve; it may be gone since.
  bool refused() const;
  // Not OK when host 0 will never let this one in: the tokens differ.
  absl::Status fault() const;

 private:
  explicit NodeLink(const NodeOptions& options);
  void AcceptNodes();
  void JoinLeader();
  absl::Status OnFrame(int peer, const Frame& frame);
  void OnLost(int peer, const absl::Status& why);
  // Sends what is said now on a new connection.
  void Add(int peer, TcpSocket socket);
  void Wake();

  const NodeOptions options_;
  const int wake_fd_;
  TcpSocket listener_;
  mutable absl::Mutex mutex_;
  NodeState own_ ABSL_GUARDED_BY(mutex_);
  std::map<int, std::optional<NodeState>> peers_ ABSL_GUARDED_BY(mutex_);
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status fault_ ABSL_GUARDED_BY(mutex_);
  absl::Notification ending_;
  std::unique_ptr<FrameLink> link_;
  std::thread thread_;
};

}  // namespace sextant
