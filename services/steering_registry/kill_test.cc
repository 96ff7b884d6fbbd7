// Kills a writing process with SIGKILL again and again: every acknowledged version must be there afterwards.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/steering_registry/sqlite_vector_store.h"
#include "services/steering_registry/test_vectors.h"

namespace sextant {
namespace {

struct Acknowledged {
  int32_t seed;
  int32_t version;
};

// What the child does: stores versions seeded from `seed` on, and acknowledges each through `out`.
[[noreturn]] void WriteForEver(const std::string& path, int32_t seed, int out) {
  auto store = SqliteVectorStore::Open(path);
  if (!store.ok()) _exit(1);
  for (;; ++seed) {
    const std::string data = SomeData(seed);
    const auto stored = (*store)->Put(Checked(SomeVector("happy"), data), data);
    if (!stored.ok()) _exit(2);
    const Acknowledged ack = {seed, stored->version()};
    if (write(out, &ack, sizeof ack) != sizeof ack) _exit(3);
  }
}

TEST(Kill, AcknowledgedVersionsSurvive) {
  constexpr int kRounds = 25;
  const TempFolder folder;
  const std::string path = folder.File("registry.db");
  std::mt19937 random(7);
  std::vector<Acknowledged> acknowledged;
  for (int round = 0; round < kRounds; ++round) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      WriteForEver(path, round * 100'000, ends[1]);
    }
    close(ends[1]);
    const auto wanted = 1 + random() % 20;
    Acknowledged ack;
    for (size_t i = 0; i < wanted && read(ends[0], &ack, sizeof ack) == sizeof ack; ++i)
      acknowledged.push_back(ack);
    // A moment of its own each time, so that the kill strikes at different steps of a commit.
    usleep(static_cast<useconds_t>(random() % 3000));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);
    while (read(ends[0], &ack, sizeof ack) == sizeof ack) acknowledged.push_back(ack);
    close(ends[0]);

    auto store = SqliteVectorStore::Open(path);  // checks the file's integrity
    ASSERT_TRUE(store.ok()) << "round " << round << ": " << store.status();
    std::set<int32_t> versions;
    for (const Acknowledged& expected : acknowledged) {
      const auto read = (*store)->Read("happy", expected.version);
      ASSERT_TRUE(read.ok()) << "round " << round << ": " << read.status();
      ASSERT_EQ(read->data, SomeData(expected.seed)) << "version " << expected.version;
      ASSERT_TRUE(versions.insert(expected.version).second)
          << "version " << expected.version << " was given twice";
    }
    // A kill after the commit and before the acknowledgement leaves one version more at most.
    const auto stored = static_cast<size_t>((*store)->Count()->version_count);
    ASSERT_GE(stored, acknowledged.size());
    ASSERT_LE(stored, acknowledged.size() + static_cast<size_t>(round) + 1);
  }
  EXPECT_GE(acknowledged.size(), static_cast<size_t>(kRounds));
  RecordProperty("acknowledged", static_cast<int>(acknowledged.size()));
}

}  // namespace
}  // namespace sextant
