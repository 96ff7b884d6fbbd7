// Tests of the store: the contract of VectorStore, durability across reopening, and damaged files.
#include "services/steering_registry/sqlite_vector_store.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/steering_registry/test_vectors.h"

namespace sextant {
namespace {

using testing::ElementsAre;

class SqliteVectorStoreTest : public testing::Test {
 protected:
  void SetUp() override { Reopen(); }

  void Reopen() {
    store_.reset();
    auto opened = SqliteVectorStore::Open(path_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  int Put(const std::string& name, int seed) {
    const auto stored = store_->Put(Checked(SomeVector(name), SomeData(seed)), SomeData(seed));
    EXPECT_TRUE(stored.ok()) << stored.status();
    return stored.ok() ? stored->version() : -1;
  }

  // Changes the file behind the store's back.
  void Execute(const char* sql) {
    auto database = Database::Open(path_);
    ASSERT_TRUE(database.ok()) << database.status();
    const absl::Status status = (*database)->Execute(sql);
    ASSERT_TRUE(status.ok()) << status;
  }

  const TempFolder folder_;
  const std::string path_ = folder_.File("registry.db");
  std::unique_ptr<SqliteVectorStore> store_;
};

TEST_F(SqliteVectorStoreTest, VersionsCountFromOneUnderEachName) {
  EXPECT_EQ(Put("happy", 1), 1);
  EXPECT_EQ(Put("happy", 2), 2);
  EXPECT_EQ(Put("formal", 1), 1);
  EXPECT_EQ(store_->Get("happy", std::nullopt)->version(), 2);
  EXPECT_EQ(store_->Get("happy", 1)->sha256(), store_->Get("formal", 1)->sha256());
  EXPECT_TRUE(absl::IsNotFound(store_->Get("happy", 3).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Get("sad", std::nullopt).status()));
}

TEST_F(SqliteVectorStoreTest, SameContentAnswersTheExistingVersion) {
  EXPECT_EQ(Put("happy", 1), 1);
  EXPECT_EQ(Put("happy", 2), 2);
  EXPECT_EQ(Put("happy", 1), 1);
  EXPECT_EQ(Put("happy", 3), 3);
  EXPECT_EQ(store_->Count()->version_count, 3);
}

TEST_F(SqliteVectorStoreTest, NumbersAreNeverReused) {
  Put("happy", 1);
  Put("happy", 2);
  EXPECT_EQ(*store_->Hide("happy", 2), 1);
  EXPECT_EQ(store_->Get("happy", std::nullopt)->version(), 1);
  EXPECT_EQ(Put("happy", 2), 3);  // hidden content is a new version
  EXPECT_EQ(*store_->Hide("happy", std::nullopt), 2);
  EXPECT_TRUE(absl::IsNotFound(store_->Hide("happy", std::nullopt).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Hide("happy", 1).status()));
  Reopen();
  EXPECT_EQ(Put("happy", 9), 4);
}

TEST_F(SqliteVectorStoreTest, ReadsBackWhatWasPutAfterReopening) {
  v1::Vector vector = SomeVector("happy", {3, 9});
  vector.set_description("π ≈ 3.14");
  (*vector.mutable_labels())["method"] = "mean_difference";
  vector.mutable_create_time()->set_seconds(1'700'000'000);
  const std::string data = Bytes({1, 2, 3, 4, 5, 6, 7, 8});
  ASSERT_TRUE(store_->Put(Checked(vector, data), data).ok());
  Reopen();
  const auto read = store_->Read("happy", std::nullopt);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->data, data);
  v1::Vector expected = Checked(vector, data);
  expected.set_version(1);
  EXPECT_EQ(read->vector.DebugString(), expected.DebugString());
}

TEST_F(SqliteVectorStoreTest, ListsPageInOrder) {
  for (const char* name : {"b", "a", "d", "c"}) Put(name, 1);
  Put("a", 2);
  Put("c", 2);
  ASSERT_TRUE(store_->Hide("d", std::nullopt).ok());
  ASSERT_TRUE(store_->Hide("c", 2).ok());
  std::vector<std::string> listed;
  for (const char* after : {"", "b"}) {
    const auto page = store_->ListNewest(after, 2);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const v1::Vector& vector : *page)
      listed.push_back(absl::StrCat(vector.name(), "@", vector.version()));
  }
  EXPECT_THAT(listed, ElementsAre("a@2", "b@1", "c@1"));
  const auto versions = store_->ListVersions("a", 2, 10);
  ASSERT_EQ(versions->size(), 1u);
  EXPECT_EQ((*versions)[0].version(), 1);
  EXPECT_THAT(*store_->Names(10), ElementsAre("a", "b", "c"));
  EXPECT_EQ(store_->Count()->name_count, 3);
}

TEST_F(SqliteVectorStoreTest, ChangedDirectionsAreDataLoss) {
  Put("happy", 1);
  Execute("UPDATE blobs SET data = zeroblob(16)");
  EXPECT_EQ(ErrorReason(store_->Read("happy", 1).status()), "VECTOR_CORRUPT");
  EXPECT_TRUE(store_->Get("happy", 1).ok());
}

TEST_F(SqliteVectorStoreTest, ChangedDescriptionIsDataLoss) {
  Put("happy", 1);
  Execute("UPDATE versions SET vector = CAST(vector AS BLOB) || x'00'");
  EXPECT_EQ(ErrorReason(store_->Get("happy", 1).status()), "VECTOR_CORRUPT");
}

TEST_F(SqliteVectorStoreTest, VersionsMovedToAnotherNameAreDataLoss) {
  Put("happy", 1);
  Put("sad", 2);
  Execute("UPDATE versions SET version = 2 WHERE name = 'happy'");
  EXPECT_EQ(ErrorReason(store_->Get("happy", 2).status()), "VECTOR_CORRUPT");
}

TEST_F(SqliteVectorStoreTest, DamagedFilesAreRefusedAtTheStart) {
  for (int seed = 0; seed < 200; ++seed) Put("happy", seed);
  store_.reset();
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3 * 4096);
    file << std::string(8192, '\x5a');
  }
  EXPECT_EQ(ErrorReason(SqliteVectorStore::Open(path_).status()), "DATABASE_CORRUPT");
  std::ofstream(path_) << std::string(8192, 'x');
  EXPECT_EQ(ErrorReason(SqliteVectorStore::Open(path_).status()), "DATABASE_CORRUPT");
}

TEST_F(SqliteVectorStoreTest, LaterSchemasAreRefused) {
  Execute("PRAGMA user_version = 2");
  store_.reset();
  EXPECT_EQ(ErrorReason(SqliteVectorStore::Open(path_).status()), "DATABASE_TOO_NEW");
}

TEST_F(SqliteVectorStoreTest, FoldersThatDoNotExistAreRefused) {
  EXPECT_EQ(ErrorReason(SqliteVectorStore::Open(folder_.File("none/registry.db")).status()),
            "DATABASE_UNWRITABLE");
}

TEST_F(SqliteVectorStoreTest, TwoStoresOnOneFileShareNumbers) {
  auto second = SqliteVectorStore::Open(path_);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(Put("happy", 1), 1);
  EXPECT_EQ((*second)->Put(Checked(SomeVector("happy"), SomeData(2)), SomeData(2))->version(), 2);
  EXPECT_EQ(Put("happy", 3), 3);
}

}  // namespace
}  // namespace sextant
