// Tests of the registry's core: words for what is missing, paging, and what it adds to a vector.
#include "services/steering_registry/registry.h"

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/steering_registry/sqlite_vector_store.h"
#include "services/steering_registry/test_vectors.h"

namespace sextant {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RegistryTest : public testing::Test {
 protected:
  std::string Message(const absl::Status& status) { return std::string(status.message()); }

  // All pages of a listing, as name@version.
  std::vector<std::string> ListAll(const std::string& name, int page_size) {
    std::vector<std::string> all;
    v1::ListVectorsRequest request;
    request.set_name(name);
    request.set_page_size(page_size);
    do {
      const auto page = registry_.List(request);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) return all;
      EXPECT_LE(page->vectors_size(), page_size);
      for (const v1::Vector& vector : page->vectors())
        all.push_back(vector.name() + "@" + std::to_string(vector.version()));
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return all;
  }

  const TempFolder folder_;
  std::unique_ptr<SqliteVectorStore> store_ = *SqliteVectorStore::Open(folder_.File("registry.db"));
  ManualClock clock_{absl::FromUnixSeconds(1'700'000'000)};
  Registry registry_{*store_, clock_};
};

TEST_F(RegistryTest, CreateFillsWhatIsOutputOnly) {
  v1::Vector vector = SomeVector("happy");
  vector.set_version(77);
  vector.set_sha256("mine");
  vector.add_norms(-1);
  const auto stored = registry_.Create(vector, Bytes({0, 3, 4, 0}));
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->version(), 1);
  EXPECT_EQ(stored->sha256().size(), 64u);
  EXPECT_THAT(stored->norms(), ElementsAre(5));
  EXPECT_EQ(stored->create_time().seconds(), 1'700'000'000);
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(registry_.Create(vector, Bytes({0, 3, 4, 0}))->create_time().seconds(), 1'700'000'000);
}

TEST_F(RegistryTest, NotFoundHelps) {
  ASSERT_TRUE(registry_.Create(SomeVector("happy"), SomeData(1)).ok());
  const absl::Status near = registry_.Get("hapy").status();
  EXPECT_EQ(ErrorReason(near), "VECTOR_NOT_FOUND");
  EXPECT_THAT(Message(near), HasSubstr("did you mean happy?"));
  EXPECT_THAT(Message(registry_.Read("happy@5").status()), HasSubstr("the newest is happy@1"));
  EXPECT_THAT(Message(registry_.Delete("unrelated").status()), HasSubstr("there is no vector 'unrelated'"));
  EXPECT_EQ(ErrorReason(registry_.Get("no such name!").status()), "VECTOR_REFERENCE_INVALID");
}

TEST_F(RegistryTest, BadVectorsAreNotStored) {
  EXPECT_EQ(ErrorReason(registry_.Create(SomeVector("Bad"), SomeData(1)).status()), "VECTOR_NAME_INVALID");
  EXPECT_EQ(ErrorReason(registry_.Create(SomeVector("bad"), "").status()), "VECTOR_SHAPE");
  EXPECT_EQ(store_->Count()->version_count, 0);
}

TEST_F(RegistryTest, PagesJoinToTheWholeList) {
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(registry_.Create(SomeVector("v" + std::to_string(i)), SomeData(1)).ok());
    ASSERT_TRUE(registry_.Create(SomeVector("v3"), SomeData(10 + i)).ok());
  }
  for (const int page_size : {1, 2, 3, 7, 100}) {
    EXPECT_THAT(ListAll("", page_size), ElementsAre("v0@1", "v1@1", "v2@1", "v3@8", "v4@1", "v5@1", "v6@1"));
    EXPECT_THAT(ListAll("v3", page_size),
                ElementsAre("v3@8", "v3@7", "v3@6", "v3@5", "v3@4", "v3@3", "v3@2", "v3@1"));
  }
  EXPECT_THAT(ListAll("none", 5), ElementsAre());
}

TEST_F(RegistryTest, APageOfLargeDescriptionsEndsEarly) {
  v1::Vector vector = SomeVector("large");
  vector.set_description(std::string(4096, 'd'));
  for (int i = 0; i < 64; ++i)
    (*vector.mutable_labels())["label" + std::to_string(i)] = std::string(1024, 'x');
  constexpr int kCount = 40;
  std::vector<std::string> versions, names;
  for (int i = 1; i <= kCount; ++i) {
    vector.set_name("large");
    ASSERT_TRUE(registry_.Create(vector, SomeData(i)).ok());
    versions.insert(versions.begin(), "large@" + std::to_string(i));
    vector.set_name("n" + std::to_string(100 + i));
    ASSERT_TRUE(registry_.Create(vector, SomeData(i)).ok());
    names.push_back(vector.name() + "@1");
  }
  names.insert(names.begin(), versions.front());
  v1::ListVectorsRequest request;
  request.set_page_size(1000);
  const auto page = registry_.List(request);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_GE(page->vectors_size(), 10);
  EXPECT_LE(page->ByteSizeLong(), (1u << 20) + 1024);
  EXPECT_EQ(page->next_page_token(), "n:" + page->vectors().rbegin()->name());
  EXPECT_EQ(ListAll("", 1000), names);
  EXPECT_EQ(ListAll("large", 1000), versions);
}

TEST_F(RegistryTest, BadPagesAreRefused) {
  v1::ListVectorsRequest request;
  request.set_page_size(-1);
  EXPECT_EQ(ErrorReason(registry_.List(request).status()), "PAGE_SIZE_INVALID");
  request.set_page_size(0);
  for (const char* token : {"x", "n:", "n:BAD", "v:3"}) {
    request.set_page_token(token);
    EXPECT_EQ(ErrorReason(registry_.List(request).status()), "PAGE_TOKEN_INVALID") << token;
  }
  request.set_name("happy");
  for (const char* token : {"n:happy", "v:0", "v:x"}) {
    request.set_page_token(token);
    EXPECT_EQ(ErrorReason(registry_.List(request).status()), "PAGE_TOKEN_INVALID") << token;
  }
}

}  // namespace
}  // namespace sextant
