// Keeps a group's rank processes of this host alive: starts them together, and all of them anew, with those
// of other hosts, when one is lost.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/group_memory.h"
#include "common/rpc/shutdown_signal.h"
#include "services/shard_worker/node_link.h"

namespace sextant {

// Exit status of a rank that can never serve as it was started (no such model, port taken): the supervisor
// gives up.
inline constexpr int kExitRefused = 3;

struct SupervisorOptions {
  int rank_count = 1;  // of this host
  int first_rank = 0;  // of this host
  int group_size = 1;  // ranks of all hosts
  // The hosts of the group.
  NodeOptions nodes;
  // Program and flags of every rank; the rank's own flags are appended.
  std::string program;
  std::vector<std::string> arguments;
  // After SIGTERM, before ranks are killed.
  absl::Duration drain = absl::Seconds(15);
  // For ranks to end their calls when one of them was lost.
  absl::Duration farewell = absl::Seconds(1);
  absl::Duration first_backoff = absl::Milliseconds(200);
  absl::Duration longest_backoff = absl::Seconds(10);
  // A group that lived for so long is started again without a growing backoff.
  absl::Duration settled = absl::Seconds(10);
};

// One thread: the one that makes it, which must live as long as the ranks (they die with it).
class Supervisor {
 public:
  // REQUIRES: `shutdown` outlives this; SIGCHLD is blocked by nobody else.
  Supervisor(SupervisorOptions options, ShutdownSignal& shutdown);
  ~Supervisor();

  // Runs until SIGTERM: OK after a drain. FAILED_PRECONDITION RANKS_REFUSED when ranks cannot serve at all
  // (on any host), PERMISSION_DENIED GROUP_TOKEN when host 0 does not let this one in, and the system's
  // errors of starting ranks.
  absl::Status Run();

 private:
  struct Child {
    pid_t pid = 0;
    bool alive = false;
  };
  enum class Outcome { kLost, kRefused, kDrained };

  // Chooses the next epoch; with several hosts, once all of them are ready for it. kLost: it may start.
  absl::StatusOr<Outcome> WaitForEpoch();
  // Host 0's part of it: the others that are away, leaving or not done with the last one; "1,3".
  std::string MissingNodes();
  // Whether, on host 0, another host of this epoch was asked to end.
  bool AnyLeaving();
  // Whether another host ended this epoch, or is away.
  bool EndedElsewhere();
  // Tells the other hosts what this one does.
  void Say(int64_t epoch);

  absl::Status StartRanks();
  absl::StatusOr<pid_t> StartRank(int rank);
  Outcome WaitForRanks();
  // Waits until a child has ended, SIGTERM has come (then asked_to_end_ is set) or the time is over.
  void WaitForEvent(absl::Duration timeout);
  // Notes children that have ended. True if one of them did not end well.
  bool Reap();
  // Lets the group end its calls, then its ranks: rank 0 drains for all, and the others end when it has.
  void DrainRanks();
  void KillAll();
  // Lets the ranks end by themselves for `grace`, then kills them.
  void EndAll(absl::Duration grace);
  bool AnyAlive() const;

  const SupervisorOptions options_;
  ShutdownSignal& shutdown_;
  int child_signal_fd_ = -1;
  int64_t epoch_ = 0;
  int64_t restart_count_ = 0;
  std::unique_ptr<GroupMemory> memory_;
  std::vector<Child> children_;
  bool asked_to_end_ = false;
  bool refused_ = false;
  std::unique_ptr<NodeLink> nodes_;  // null when there is one host
  std::vector<bool> seen_running_;   // [node_count]: this epoch, on host 0
};

}  // namespace sextant
