// Tests of the safetensors reader: what it reads, and every damaged or hostile kind it must refuse.
#include "common/model/safetensors.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/model/testing/safetensors_builder.h"
#include "common/model/testing/temporary_folder.h"

namespace sextant {
namespace {

std::string Fault(const absl::Status& status) {
  if (status.ok()) return "accepted";
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return ErrorReason(status);
}

std::string FaultOf(const std::string& header, int64_t data_bytes = 8) {
  return Fault(ParseSafetensorsHeader(header, data_bytes).status());
}

// A header with one tensor "t" of these members.
std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat("{\"t\":{\"dtype\":", dtype, ",\"shape\":", shape, ",\"data_offsets\":", offsets, "}}");
}

std::string FaultOfFile(const std::string& bytes) {
  TemporaryFolder folder;
  return Fault(SafetensorsFile::Open(folder.Write("model.safetensors", bytes)).status());
}

TEST(SafetensorsTest, ReadsTensors) {
  TemporaryFolder folder;
  const std::string bytes = SafetensorsBuilder().F32("a", {2, 2}, {1, 2, 3, 4}).F32("b", {1}, {5}).Build();
  const auto file = SafetensorsFile::Open(folder.Write("x.safetensors", bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  const SafetensorsTensor* b = file->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(file->Find("a")->shape, (std::vector<int64_t>{2, 2}));
  float value = 0;
  ASSERT_TRUE(file->Read(*b, 0, absl::MakeSpan(reinterpret_cast<uint8_t*>(&value), 4)).ok());
  EXPECT_EQ(value, 5.0f);
  EXPECT_EQ(file->Find("c"), nullptr);
}

TEST(SafetensorsTest, AcceptsMetadataTrailingSpacesAndOrderOfItsOwn) {
  EXPECT_EQ(
      FaultOf(R"({"__metadata__":{"format":"pt"},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )"),
      "accepted");
  EXPECT_EQ(FaultOf(R"({"b":{"data_offsets":[4,8],"dtype":"F32","shape":[]},)"
                    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"),
            "accepted");
}

TEST(SafetensorsTest, AcceptsARealZeroDimension) {
  EXPECT_EQ(FaultOf(R"({"e":{"dtype":"F32","shape":[4,0],"data_offsets":[0,0]},)"
                    R"("t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
            "accepted");
}

// ---- the file around the header

TEST(SafetensorsHostileTest, FewerThanEightBytes) {
  EXPECT_EQ(FaultOfFile(""), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOfFile("1234567"), "SAFETENSORS_HEADER");
}

TEST(SafetensorsHostileTest, HeaderSizes) {
  for (const uint64_t size :
       {uint64_t{100}, uint64_t{100'000'001}, ~uint64_t{0}, ~uint64_t{0} - 7, uint64_t{1} << 63}) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, sizeof size);
    EXPECT_EQ(FaultOfFile(bytes + "{}"), "SAFETENSORS_HEADER") << size;
  }
}

TEST(SafetensorsHostileTest, TruncatedFile) {
  const std::string bytes = SafetensorsBuilder().F32("a", {4}, {1, 2, 3, 4}).Build();
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_NE(FaultOfFile(bytes.substr(0, size)), "accepted") << size;
}

TEST(SafetensorsHostileTest, TruncatedWhileOpen) {
  TemporaryFolder folder;
  const std::string path =
      folder.Write("x.safetensors", SafetensorsBuilder().F32("a", {4}, {1, 2, 3, 4}).Build());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(path, 20);
  uint8_t out[16];
  const absl::Status status = file->Read(*file->Find("a"), 0, absl::MakeSpan(out));
  EXPECT_EQ(ErrorReason(status), "MODEL_FILE_CHANGED") << status;
  EXPECT_EQ(ErrorReason(file->file().CheckUnchanged()), "MODEL_FILE_CHANGED");
}

// ---- the header as JSON

TEST(SafetensorsHostileTest, NotJson) {
  EXPECT_EQ(FaultOf(""), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf("{"), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf("{} x"), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf("{\"a\": 1e999}"), "SAFETENSORS_HEADER");
}

TEST(SafetensorsHostileTest, NotBeginningWithABrace) {
  EXPECT_EQ(FaultOf(" {}", 0), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf("[]", 0), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf("{}", 0), "accepted");
}

TEST(SafetensorsHostileTest, BadUtf8) { EXPECT_EQ(FaultOf("{\"\xff\":1}"), "SAFETENSORS_HEADER"); }

TEST(SafetensorsHostileTest, DuplicateKeys) {
  const std::string entry = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  EXPECT_EQ(FaultOf("{\"t\":" + entry + ",\"t\":" + entry + "}"), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf("{\"t\":" + entry + ",\"\\u0074\":" + entry + "}"), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf(R"({"t":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})"),
            "SAFETENSORS_HEADER");
}

TEST(SafetensorsHostileTest, DeepNesting) {
  EXPECT_EQ(FaultOf("{\"a\":" + std::string(1 << 20, '[')), "SAFETENSORS_HEADER");
}

TEST(SafetensorsHostileTest, MetadataThatIsNoStrings) {
  EXPECT_EQ(FaultOf(R"({"__metadata__":1})", 0), "SAFETENSORS_HEADER");
  EXPECT_EQ(FaultOf(R"({"__metadata__":{"a":1}})", 0), "SAFETENSORS_HEADER");
}

// ---- one tensor

TEST(SafetensorsHostileTest, EntriesOfOtherForm) {
  EXPECT_EQ(FaultOf(R"({"t":1})"), "SAFETENSORS_TENSOR");
  EXPECT_EQ(FaultOf(R"({"t":{"dtype":"F32","shape":[2]}})"), "SAFETENSORS_TENSOR");
  EXPECT_EQ(FaultOf(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})"),
            "SAFETENSORS_TENSOR");
}

TEST(SafetensorsHostileTest, UnknownDType) {
  EXPECT_EQ(FaultOf(One("\"F33\"", "[2]", "[0,8]")), "SAFETENSORS_DTYPE");
  EXPECT_EQ(FaultOf(One("4", "[2]", "[0,8]")), "SAFETENSORS_DTYPE");
}

TEST(SafetensorsHostileTest, BadDimensions) {
  for (const char* shape : {"[-2]", "[2.0]", "[2.5]", "[9007199254740993]", "[18446744073709551616]",
                            "[\"2\"]", "[null]", "2", "[[2]]", "[1,1,1,1,1,1,1,1,2]"}) {
    EXPECT_EQ(FaultOf(One("\"F32\"", shape, "[0,8]")), "SAFETENSORS_SHAPE") << shape;
  }
}

TEST(SafetensorsHostileTest, ShapesThatOverflow) {
  for (const char* shape : {"[4294967296,4294967296]", "[9007199254740992,9007199254740992]",
                            // times 4 bytes: wraps to 0
                            "[2147483648,2147483648]",
                            // a zero must not hide the overflow of the others
                            "[0,4294967296,4294967296]", "[4294967296,4294967296,0]"}) {
    EXPECT_EQ(FaultOf(One("\"F32\"", shape, "[0,0]"), 0), "SAFETENSORS_SHAPE") << shape;
  }
}

TEST(SafetensorsHostileTest, SubByteElementsThatFillNoWholeByte) {
  EXPECT_EQ(FaultOf(One("\"F4\"", "[3]", "[0,1]"), 1), "SAFETENSORS_SHAPE");
  EXPECT_EQ(FaultOf(One("\"F4\"", "[2]", "[0,1]"), 1), "accepted");
}

TEST(SafetensorsHostileTest, BadOffsets) {
  for (const char* offsets : {"[0]", "[0,4,8]", "[8,0]", "[-8,0]", "[0,8.0]", "[0,16]",
                              "[0,18446744073709551615]", "8", "[0,9007199254740993]"}) {
    EXPECT_EQ(FaultOf(One("\"F32\"", "[2]", offsets)), "SAFETENSORS_OFFSETS") << offsets;
  }
}

TEST(SafetensorsHostileTest, SizeThatDisagreesWithTheShape) {
  EXPECT_EQ(FaultOf(One("\"F32\"", "[1]", "[0,8]")), "SAFETENSORS_SIZE");
  EXPECT_EQ(FaultOf(One("\"BF16\"", "[2]", "[0,8]")), "SAFETENSORS_SIZE");
  EXPECT_EQ(FaultOf(One("\"F32\"", "[0]", "[0,8]")), "SAFETENSORS_SIZE");
}

// ---- all tensors together

TEST(SafetensorsHostileTest, Overlap) {
  std::string header = "{";
  for (int i = 0; i < 10; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",", "\"t", i,
                    "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}");
  }
  EXPECT_EQ(FaultOf(header + "}"), "SAFETENSORS_LAYOUT");
}

TEST(SafetensorsHostileTest, Hole) {
  EXPECT_EQ(FaultOf(One("\"F32\"", "[1]", "[4,8]")), "SAFETENSORS_LAYOUT");
}

TEST(SafetensorsHostileTest, BytesBehindTheLastTensor) {
  EXPECT_EQ(FaultOf(One("\"F32\"", "[2]", "[0,8]"), 9), "SAFETENSORS_LAYOUT");
  EXPECT_EQ(FaultOfFile(SafetensorsBuilder().F32("a", {1}, {1}).Build() + "PK"), "SAFETENSORS_LAYOUT");
}

// ---- shards

struct Shards {
  TemporaryFolder folder;
  Shards() {
    folder.Write("one.safetensors", SafetensorsBuilder().F32("a", {1}, {1}).Build());
    folder.Write("two.safetensors", SafetensorsBuilder().F32("b", {1}, {2}).Build());
  }
  std::string FaultWith(const std::string& index) {
    folder.Write("model.safetensors.index.json", index);
    return Fault(SafetensorsFolder::Open(folder.path()).status());
  }
};

TEST(SafetensorsFolderTest, FindsTensorsInTheirShards) {
  Shards shards;
  ASSERT_EQ(shards.FaultWith(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"), "accepted");
  const auto folder = SafetensorsFolder::Open(shards.folder.path());
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(folder->files().size(), 2u);
  EXPECT_EQ(folder->Find("b").tensor->name, "b");
  EXPECT_EQ(folder->Find("c").tensor, nullptr);
}

TEST(SafetensorsFolderTest, NamesTheDamagedShard) {
  Shards shards;
  const std::string whole = SafetensorsBuilder().F32("b", {4}, {1, 2, 3, 4}).Build();
  shards.folder.Write("two.safetensors", whole.substr(0, whole.size() - 4));
  shards.folder.Write("model.safetensors.index.json",
                      R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const absl::Status status = SafetensorsFolder::Open(shards.folder.path()).status();
  EXPECT_EQ(Fault(status), "SAFETENSORS_OFFSETS");
  EXPECT_NE(std::string(status.message()).find("/two.safetensors: "), std::string::npos) << status;
}

TEST(SafetensorsFolderTest, IndexNamingAFileOutsideTheFolder) {
  for (const char* name :
       {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", "a\\u0000b"}) {
    Shards shards;
    EXPECT_EQ(shards.FaultWith(absl::StrCat(R"({"weight_map":{"a":")", name, "\"}}")), "SAFETENSORS_INDEX")
        << name;
  }
}

TEST(SafetensorsFolderTest, TensorInTwoShards) {
  Shards shards;
  shards.folder.Write("two.safetensors", SafetensorsBuilder().F32("a", {1}, {2}).F32("b", {1}, {2}).Build());
  EXPECT_EQ(shards.FaultWith(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"),
            "SAFETENSORS_INDEX");
}

TEST(SafetensorsFolderTest, TensorThatItsShardLacks) {
  Shards shards;
  EXPECT_EQ(shards.FaultWith(R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})"),
            "SAFETENSORS_INDEX");
}

TEST(SafetensorsFolderTest, MalformedIndex) {
  for (const char* index :
       {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})", R"({"weight_map":{"a":1}})",
        R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})"}) {
    Shards shards;
    EXPECT_EQ(shards.FaultWith(index), "SAFETENSORS_INDEX") << index;
  }
}

TEST(SafetensorsFolderTest, MissingFilesAreNotFound) {
  TemporaryFolder empty;
  EXPECT_EQ(SafetensorsFolder::Open(empty.path()).status().code(), absl::StatusCode::kNotFound);
  Shards shards;
  shards.folder.Write("model.safetensors.index.json", R"({"weight_map":{"a":"three.safetensors"}})");
  EXPECT_EQ(ErrorReason(SafetensorsFolder::Open(shards.folder.path()).status()), "MODEL_FILE_MISSING");
}

}  // namespace
}  // namespace sextant
