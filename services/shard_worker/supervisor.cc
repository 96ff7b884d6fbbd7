// Implements the supervisor.
#include "services/shard_worker/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

sigset_t ChildSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  return set;
}

// In words for the log: how a process ended.
std::string Ending(int status) {
  if (WIFSIGNALED(status)) return absl::StrCat("signal ", WTERMSIG(status));
  return absl::StrCat("exit status ", WEXITSTATUS(status));
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, ShutdownSignal& shutdown)
    : options_(std::move(options)), shutdown_(shutdown) {
  const sigset_t set = ChildSignal();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  child_signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  SEXTANT_CHECK_LE(0, child_signal_fd_);
}

Supervisor::~Supervisor() {
  KillAll();
  close(child_signal_fd_);
}

absl::Status Supervisor::Run() {
  if (options_.nodes.node_count > 1) {
    // Its threads must come after SIGCHLD is blocked: one that does not block it would swallow it.
    SEXTANT_ASSIGN_OR_RETURN(nodes_, NodeLink::Start(options_.nodes));
  }
  absl::Duration backoff = options_.first_backoff;
  while (true) {
    SEXTANT_ASSIGN_OR_RETURN(Outcome outcome, WaitForEpoch());
    const absl::Time start = absl::Now();
    if (outcome == Outcome::kLost) {
      SEXTANT_RETURN_IF_ERROR(StartRanks());
      outcome = WaitForRanks();
      Say(0);
    }
    if (outcome == Outcome::kDrained) return absl::OkStatus();
    if (outcome == Outcome::kRefused) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "RANKS_REFUSED",
                       "the ranks cannot serve; their logs say why");
    }
    if (absl::Now() - start >= options_.settled) backoff = options_.first_backoff;
    // Elsewhere the first host counts, and says when to start.
    if (options_.nodes.node != 0) continue;
    ++restart_count_;
    LogWarning("starting the group again",
               {{"restarts", restart_count_}, {"backoff", absl::FormatDuration(backoff)}});
    const absl::Time until = absl::Now() + backoff;
    while (!asked_to_end_ && absl::Now() < until) WaitForEvent(until - absl::Now());
    if (asked_to_end_) return absl::OkStatus();
    backoff = std::min(backoff * 2, options_.longest_backoff);
  }
}

absl::StatusOr<Supervisor::Outcome> Supervisor::WaitForEpoch() {
  // A clock set back must not make a new group look older than the last one.
  const auto choose = [this] { epoch_ = std::max(absl::ToUnixMillis(absl::Now()), epoch_ + 1); };
  if (nodes_ == nullptr) {
    choose();
    return Outcome::kLost;
  }
  NodeLink& nodes = *nodes_;
  std::string told;
  absl::Time tell_at = absl::InfiniteFuture();
  while (true) {
    if (asked_to_end_) return Outcome::kDrained;
    if (nodes.refused()) return Outcome::kRefused;
    SEXTANT_RETURN_IF_ERROR(nodes.fault());
    const std::optional<NodeState> leader = nodes.StateOf(0);
    if (options_.nodes.node == 0) {
      const std::string missing = MissingNodes();
      if (missing.empty()) {
        choose();
        break;
      }
      if (missing != told || absl::Now() >= tell_at) {
        LogWarning("waiting for other hosts", {{"nodes", missing}});
        told = missing;
        tell_at = absl::Now() + kNodeReminder;
      }
    }
    if (options_.nodes.node != 0 && leader.has_value() && leader->epoch > epoch_) {
      epoch_ = leader->epoch;
      restart_count_ = leader->restart_count;
      break;
    }
    WaitForEvent(tell_at - absl::Now());
  }
  seen_running_.assign(options_.nodes.node_count, false);
  Say(epoch_);
  return Outcome::kLost;
}

std::string Supervisor::MissingNodes() {
  std::string missing;
  for (int node = 1; node < options_.nodes.node_count; ++node) {
    const std::optional<NodeState> state = nodes_->StateOf(node);
    if (!state.has_value() || state->epoch != 0 || state->leaving) {
      absl::StrAppend(&missing, missing.empty() ? "" : ",", node);
    } else {
      epoch_ = std::max(epoch_, state->ended_epoch);
    }
  }
  return missing;
}

bool Supervisor::EndedElsewhere() {
  if (nodes_ == nullptr) return false;
  if (options_.nodes.node != 0) {
    const std::optional<NodeState> leader = nodes_->StateOf(0);
    return !leader.has_value() || leader->epoch != epoch_;
  }
  for (int node = 1; node < options_.nodes.node_count; ++node) {
    const std::optional<NodeState> state = nodes_->StateOf(node);
    if (!state.has_value() || state->ended_epoch >= epoch_) return true;
    // One that ran it and now does not was started anew meanwhile.
    if (seen_running_[node] && state->epoch != epoch_) return true;
    if (state->epoch == epoch_) seen_running_[node] = true;
  }
  return false;
}

bool Supervisor::AnyLeaving() {
  if (nodes_ == nullptr || options_.nodes.node != 0) return false;
  for (int node = 1; node < options_.nodes.node_count; ++node) {
    const std::optional<NodeState> state = nodes_->StateOf(node);
    if (state.has_value() && state->leaving && state->epoch == epoch_) return true;
  }
  return false;
}

void Supervisor::Say(int64_t epoch) {
  if (nodes_ == nullptr) return;
  nodes_->SetState({.epoch = epoch,
                    .ended_epoch = epoch == 0 ? epoch_ : 0,
                    .restart_count = restart_count_,
                    .refused = refused_,
                    .leaving = asked_to_end_});
}

absl::Status Supervisor::StartRanks() {
  SEXTANT_ASSIGN_OR_RETURN(memory_, GroupMemory::Create(options_.rank_count));
  children_.assign(options_.rank_count, Child());
  for (int rank = 0; rank < options_.rank_count; ++rank) {
    const absl::StatusOr<pid_t> pid = StartRank(rank);
    if (!pid.ok()) {
      KillAll();
      return pid.status();
    }
    children_[rank] = {*pid, true};
  }
  LogInfo("started a group", {{"ranks", options_.rank_count}, {"epoch", epoch_}});
  return absl::OkStatus();
}

absl::StatusOr<pid_t> Supervisor::StartRank(int rank) {
  // What ps shows; the program itself is one file for all.
  const NodeOptions& nodes = options_.nodes;
  std::vector<std::string> arguments = {
      absl::StrCat("shard_worker rank ", options_.first_rank + rank, "/", options_.group_size)};
  if (nodes.node_count > 1) absl::StrAppend(&arguments[0], " host ", nodes.node, "/", nodes.node_count);
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  arguments.push_back(absl::StrCat("--rank=", options_.first_rank + rank));
  arguments.push_back(absl::StrCat("--epoch=", epoch_));
  arguments.push_back(absl::StrCat("--group_fd=", memory_->fd()));
  arguments.push_back(absl::StrCat("--restarts=", restart_count_));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    return MakeError(absl::StatusCode::kResourceExhausted, "FORK_FAILED",
                     absl::StrCat("cannot start a rank: ", std::strerror(errno)));
  }
  if (child != 0) return child;
  // Only calls that are safe between fork and exec from here on.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  const sigset_t set = ChildSignal();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ShutdownSignal::Unblock();
  fcntl(memory_->fd(), F_SETFD, 0);
  execv(options_.program.c_str(), argv.data());
  _exit(127);
}

Supervisor::Outcome Supervisor::WaitForRanks() {
  refused_ = false;
  while (true) {
    WaitForEvent(absl::InfiniteDuration());
    if (asked_to_end_) {
      LogInfo("draining; a second signal ends at once");
      shutdown_.ExitOnNext();
      // Elsewhere than on host 0, this asks that one to drain: no group serves without this host.
      Say(epoch_);
      DrainRanks();
      return Outcome::kDrained;
    }
    Reap();
    if (AnyLeaving()) {
      LogInfo("draining: another host is leaving", {{"epoch", epoch_}});
      DrainRanks();
      return Outcome::kLost;
    }
    const bool ended_elsewhere = EndedElsewhere();
    if (!ended_elsewhere &&
        std::all_of(children_.begin(), children_.end(), [](const Child& child) { return child.alive; }))
      continue;
    if (ended_elsewhere) LogWarning("the group ended on another host", {{"epoch", epoch_}});
    // Those that are left cannot go on; they end their calls with a reason, then themselves.
    memory_->Abort();
    EndAll(options_.farewell);
    return refused_ || (nodes_ != nullptr && nodes_->refused()) ? Outcome::kRefused : Outcome::kLost;
  }
}

void Supervisor::WaitForEvent(absl::Duration timeout) {
  // poll() passes over a descriptor of -1. A second signal is not this thread's: taken here, it would not end
  // the process.
  const int shutdown_fd = asked_to_end_ ? -1 : shutdown_.fd();
  const int nodes_fd = nodes_ == nullptr ? -1 : nodes_->wake_fd();
  pollfd fds[3] = {{shutdown_fd, POLLIN, 0}, {child_signal_fd_, POLLIN, 0}, {nodes_fd, POLLIN, 0}};
  const int milliseconds =
      timeout == absl::InfiniteDuration()
          ? -1
          : static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout) + 1, 0, 60'000));
  if (poll(fds, 3, milliseconds) <= 0) return;
  if (nodes_ != nullptr) nodes_->ClearWake();
  signalfd_siginfo info;
  while (read(child_signal_fd_, &info, sizeof info) > 0) {
  }
  if ((fds[0].revents & POLLIN) != 0 && shutdown_.WaitFor(absl::ZeroDuration())) asked_to_end_ = true;
}

bool Supervisor::Reap() {
  bool lost = false;
  for (size_t rank = 0; rank < children_.size(); ++rank) {
    Child& child = children_[rank];
    int status = 0;
    if (!child.alive || waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    child.alive = false;
    lost |= status != 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == kExitRefused) refused_ = true;
    if (status != 0)
      LogWarning("a rank ended",
                 {{"rank", absl::StrCat(options_.first_rank + rank, " of ", options_.group_size)},
                  {"host", absl::StrCat(options_.nodes.node, " of ", options_.nodes.node_count)},
                  {"pid", child.pid},
                  {"how", Ending(status)}});
  }
  return lost;
}

bool Supervisor::AnyAlive() const {
  return std::any_of(children_.begin(), children_.end(), [](const Child& child) { return child.alive; });
}

void Supervisor::EndAll(absl::Duration grace) {
  const absl::Time deadline = absl::Now() + grace;
  while (AnyAlive() && absl::Now() < deadline) {
    // A rank that is lost while draining keeps the others from ending.
    if (Reap()) memory_->Abort();
    if (AnyAlive()) WaitForEvent(std::min(deadline - absl::Now(), absl::Seconds(1)));
  }
  KillAll();
}

void Supervisor::DrainRanks() {
  if (options_.first_rank == 0 && children_[0].alive) kill(children_[0].pid, SIGTERM);
  EndAll(options_.drain);
}

void Supervisor::KillAll() {
  for (Child& child : children_) {
    if (!child.alive) continue;
    kill(child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
    child.alive = false;
  }
}

}  // namespace sextant
