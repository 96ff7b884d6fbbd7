// Tests of waiting for signals, in child processes so that the test itself keeps its signals.
#include "common/rpc/shutdown_signal.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace sextant {
namespace {

// Runs `body` in a child, and returns its wait status.
template <typename Body>
int InChild(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(ShutdownSignal, WaitsForASignal) {
  const int status = InChild([] {
    ShutdownSignal signal;
    if (signal.WaitFor(absl::ZeroDuration())) _exit(1);
    kill(getpid(), SIGTERM);
    if (!signal.WaitFor(absl::Seconds(10))) _exit(2);
    if (signal.WaitFor(absl::ZeroDuration())) _exit(3);
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ShutdownSignal, SecondSignalEndsTheProcess) {
  const int status = InChild([] {
    ShutdownSignal signal;
    kill(getpid(), SIGTERM);
    signal.Wait();
    signal.ExitOnNext();
    kill(getpid(), SIGTERM);
    pause();
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGTERM);
}

TEST(ShutdownSignal, DestructorEndsTheWatcherAndUnblockLetsSignalsThrough) {
  const int status = InChild([] {
    {
      ShutdownSignal signal;
      signal.ExitOnNext();
    }
    ShutdownSignal::Unblock();
    kill(getpid(), SIGTERM);
    _exit(4);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

}  // namespace
}  // namespace sextant
