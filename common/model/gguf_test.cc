// Tests of the GGUF header parser: what it reads, and every damaged or hostile kind it must refuse.
#include "common/model/gguf.h"

#include <gtest/gtest.h>

#include <limits>

#include "common/base/error.h"
#include "common/model/testing/gguf_builder.h"
#include "common/model/testing/temporary_folder.h"

namespace sextant {
namespace {

absl::StatusOr<GgufHeader> ParseBytes(const std::string& bytes) {
  return GgufHeader::Parse(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()),
                           static_cast<int64_t>(bytes.size()));
}

std::string ReasonOf(const std::string& bytes) {
  const auto header = ParseBytes(bytes);
  if (header.ok()) return "accepted";
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument) << header.status();
  return ErrorReason(header.status());
}

GgufBuilder TwoTensors() {
  GgufBuilder builder;
  builder.String("general.architecture", "llama").U32("llama.block_count", 2);
  builder.F32Tensor("a", {3, 2}, {1, 2, 3, 4, 5, 6}).F32Tensor("b", {4}, {7, 8, 9, 10});
  return builder;
}

TEST(GgufTest, ReadsMetadataAndPlacesTensors) {
  GgufBuilder builder = TwoTensors();
  builder.F32("eps", 0.5f).Strings("tokens", {"x", "", "yz"}).Pair("flag", 7, "\x01");
  builder.Pair("types", 9, ByteWriter().Number<uint32_t>(5).Number<uint64_t>(2).Number(-1).Number(3).bytes());
  builder.Pair("scores", 9, ByteWriter().Number<uint32_t>(6).Number<uint64_t>(1).Number(2.5f).bytes());
  const auto header = ParseBytes(builder.Build());
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(*header->String("general.architecture"), "llama");
  EXPECT_EQ(*header->Integer("llama.block_count"), 2);
  EXPECT_EQ(*header->Float("eps"), 0.5);
  EXPECT_TRUE(*header->Boolean("flag"));
  EXPECT_EQ(**header->Strings("tokens"), (std::vector<std::string>{"x", "", "yz"}));
  EXPECT_EQ(**header->Integers("types"), (std::vector<int64_t>{-1, 3}));
  EXPECT_EQ(**header->Floats("scores"), (std::vector<double>{2.5}));
  const GgufTensor* a = header->Find("a");
  const GgufTensor* b = header->Find("b");
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(a->rows, 2);
  EXPECT_EQ(a->cols, 3);
  EXPECT_EQ(b->rows, 1);
  EXPECT_EQ(b->offset, a->offset + 32);
  EXPECT_EQ(header->Find("c"), nullptr);
}

TEST(GgufTest, ReadsVersion2) {
  GgufBuilder builder = TwoTensors();
  builder.version = 2;
  EXPECT_EQ(ReasonOf(builder.Build()), "accepted");
}

TEST(GgufTest, ReadsAnEmptyFileOfNothingButCounts) { EXPECT_EQ(ReasonOf(GgufBuilder().Build()), "accepted"); }

TEST(GgufTest, ReadsACustomAlignment) {
  GgufBuilder builder = TwoTensors();
  builder.U32("general.alignment", 64);
  builder.alignment = 64;
  EXPECT_EQ(ReasonOf(builder.Build()), "accepted");
}

TEST(GgufTest, ReadsAHeaderLongerThanTheFirstRead) {
  GgufBuilder builder = TwoTensors();
  builder.String("long", std::string(6 << 20, 'x'));
  TemporaryFolder folder;
  const auto file = WeightFile::Open(folder.Write("long.gguf", builder.Build()));
  ASSERT_TRUE(file.ok());
  const auto header = GgufHeader::Read(*file);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->String("long")->size(), 6u << 20);
}

TEST(GgufTest, AFaultNamesItsFile) {
  const std::string whole = TwoTensors().Build();
  TemporaryFolder folder;
  const auto file = WeightFile::Open(folder.Write("short.gguf", whole.substr(0, whole.size() / 2)));
  ASSERT_TRUE(file.ok());
  const absl::Status status = GgufHeader::Read(*file).status();
  EXPECT_EQ(ErrorReason(status), "GGUF_TRUNCATED");
  EXPECT_NE(std::string(status.message()).find("/short.gguf: "), std::string::npos) << status;
}

TEST(GgufTest, GettersRefuseMissingKeysAndOtherTypes) {
  const auto header = ParseBytes(TwoTensors().Build());
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(ErrorReason(header->String("nothing").status()), "GGUF_KEY_MISSING");
  EXPECT_EQ(ErrorReason(header->Integer("general.architecture").status()), "GGUF_KEY_TYPE");
  EXPECT_EQ(ErrorReason(header->Strings("general.architecture").status()), "GGUF_KEY_TYPE");
  EXPECT_EQ(ErrorReason(header->Float("llama.block_count").status()), "GGUF_KEY_TYPE");
}

// ---- header

TEST(GgufHostileTest, Empty) { EXPECT_EQ(ReasonOf(""), "GGUF_TRUNCATED"); }

TEST(GgufHostileTest, BadMagic) {
  GgufBuilder builder = TwoTensors();
  builder.magic = "GGML";
  EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_MAGIC");
}

TEST(GgufHostileTest, BadVersions) {
  for (const uint32_t version : {0u, 1u, 4u, 0xffffffffu}) {
    GgufBuilder builder = TwoTensors();
    builder.version = version;
    EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_VERSION") << version;
  }
}

TEST(GgufHostileTest, BigEndianIsNamed) {
  GgufBuilder builder = TwoTensors();
  builder.version = 3u << 24;
  const auto header = ParseBytes(builder.Build());
  EXPECT_EQ(ErrorReason(header.status()), "GGUF_VERSION");
  EXPECT_NE(header.status().message().find("big-endian"), absl::string_view::npos);
}

TEST(GgufHostileTest, BadCounts) {
  for (const int64_t count : {int64_t{-1}, int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
    GgufBuilder builder = TwoTensors();
    builder.tensor_count = count;
    EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_COUNT") << count;
    builder = TwoTensors();
    builder.key_count = count;
    EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_COUNT") << count;
  }
}

// ---- keys and values

TEST(GgufHostileTest, BadKeySize) {
  GgufBuilder builder;
  builder.pairs.push_back(ByteWriter().Number<uint64_t>(~uint64_t{0}).bytes());
  EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_KEY");
}

TEST(GgufHostileTest, EmptyKey) { EXPECT_EQ(ReasonOf(GgufBuilder().U32("", 1).Build()), "GGUF_KEY"); }

TEST(GgufHostileTest, DuplicateKey) {
  EXPECT_EQ(ReasonOf(GgufBuilder().U32("k", 1).U32("k", 1).Build()), "GGUF_KEY_DUPLICATE");
}

TEST(GgufHostileTest, BadValueTypes) {
  EXPECT_EQ(ReasonOf(GgufBuilder().Pair("k", 13, "12345678").Build()), "GGUF_VALUE_TYPE");
  EXPECT_EQ(ReasonOf(GgufBuilder().Pair("k", ~0u, "12345678").Build()), "GGUF_VALUE_TYPE");
}

TEST(GgufHostileTest, BadArrayElementTypes) {
  // 9: arrays do not nest. 200: unknown.
  for (const uint32_t type : {9u, 200u}) {
    const std::string array = ByteWriter().Number(type).Number<uint64_t>(1).Number<uint64_t>(0).bytes();
    EXPECT_EQ(ReasonOf(GgufBuilder().Pair("k", 9, array).Build()), "GGUF_VALUE_TYPE") << type;
  }
}

TEST(GgufHostileTest, ArrayCountsBeyondCapAndFile) {
  const auto with_count = [](uint32_t type, uint64_t count) {
    return GgufBuilder().Pair("k", 9, ByteWriter().Number(type).Number(count).bytes()).Build();
  };
  EXPECT_EQ(ReasonOf(with_count(0, ~uint64_t{0})), "GGUF_VALUE");
  EXPECT_EQ(ReasonOf(with_count(8, uint64_t{1} << 61)), "GGUF_VALUE");
  EXPECT_EQ(ReasonOf(with_count(8, 1 << 20)), "GGUF_TRUNCATED");
  EXPECT_EQ(ReasonOf(with_count(10, 1 << 20)), "GGUF_TRUNCATED");
}

TEST(GgufHostileTest, StringSizes) {
  const auto with_size = [](uint64_t size) {
    return GgufBuilder().Pair("k", 8, ByteWriter().Number(size).bytes()).Build();
  };
  EXPECT_EQ(ReasonOf(with_size(~uint64_t{0})), "GGUF_VALUE");
  EXPECT_EQ(ReasonOf(with_size(1 << 20)), "GGUF_TRUNCATED");
}

TEST(GgufHostileTest, BoolThatIsNeither) {
  EXPECT_EQ(ReasonOf(GgufBuilder().Pair("k", 7, "\x02").Build()), "GGUF_VALUE");
}

TEST(GgufHostileTest, IntegerAboveInt64) {
  EXPECT_EQ(ReasonOf(GgufBuilder().Pair("k", 10, ByteWriter().Number(~uint64_t{0}).bytes()).Build()),
            "GGUF_VALUE");
}

TEST(GgufHostileTest, BadAlignments) {
  for (const uint32_t alignment : {0u, 3u, 33u, 0x80000000u, 131072u}) {
    EXPECT_EQ(ReasonOf(TwoTensors().U32("general.alignment", alignment).Build()), "GGUF_ALIGNMENT")
        << alignment;
  }
  EXPECT_EQ(ReasonOf(TwoTensors().String("general.alignment", "32").Build()), "GGUF_ALIGNMENT");
}

// ---- tensors

TEST(GgufHostileTest, BadTensorNames) {
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor(std::string(64, 'n'), {1}, {1}).Build()), "GGUF_TENSOR_NAME");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("", {1}, {1}).Build()), "GGUF_TENSOR_NAME");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {1}, {1}).F32Tensor("a", {1}, {1}).Build()),
            "GGUF_TENSOR_DUPLICATE");
}

TEST(GgufHostileTest, BadDimensions) {
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {}, {1}).Build()), "GGUF_TENSOR_SHAPE");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {1, 1, 1, 1, 1}, {1}).Build()), "GGUF_TENSOR_SHAPE");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {-1}, {1}).Build()), "GGUF_TENSOR_SHAPE");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {0}, {}).Build()), "GGUF_TENSOR_SHAPE");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {4, -2}, {1}).Build()), "GGUF_TENSOR_SHAPE");
}

TEST(GgufHostileTest, ElementCountOverflows) {
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {1LL << 32, 1LL << 32}, {1}).Build()), "GGUF_TENSOR_SHAPE");
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {2, 1LL << 32, 1LL << 32}, {1}).Build()),
            "GGUF_TENSOR_SHAPE");
}

TEST(GgufHostileTest, ByteCountOverflows) {
  EXPECT_EQ(ReasonOf(GgufBuilder().F32Tensor("a", {1LL << 31, 1LL << 30}, {1}).Build()), "GGUF_TENSOR_SHAPE");
}

TEST(GgufHostileTest, RowsOfPartBlocks) {
  GgufBuilder builder;
  builder.tensors.push_back({"a", {33}, 8, std::string(68, 'q'), std::nullopt});
  EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_TENSOR_SHAPE");
}

TEST(GgufHostileTest, BadTensorTypes) {
  for (const uint32_t type : {4u, 12u, 1000u}) {
    GgufBuilder builder;
    builder.tensors.push_back({"a", {256}, type, std::string(1024, 'q'), std::nullopt});
    EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_TENSOR_TYPE") << type;
  }
}

TEST(GgufHostileTest, BadOffsets) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{64}, ~uint64_t{0}, uint64_t{1} << 63}) {
    GgufBuilder builder = TwoTensors();
    builder.tensors[1].offset = offset;
    EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_TENSOR_OFFSET") << offset;
  }
}

TEST(GgufHostileTest, AlignmentThatDisagreesWithTheLayout) {
  GgufBuilder builder = TwoTensors();
  builder.U32("general.alignment", 64);
  EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_TENSOR_OFFSET");
}

TEST(GgufHostileTest, ShortData) {
  const std::string file = TwoTensors().Build();
  EXPECT_EQ(ReasonOf(file.substr(0, file.size() - 17)), "GGUF_TENSOR_OUT_OF_FILE");
  EXPECT_EQ(ReasonOf(TwoTensors().Header()), "GGUF_TENSOR_OUT_OF_FILE");
}

TEST(GgufHostileTest, TensorLargerThanTheFile) {
  GgufBuilder builder;
  builder.F32Tensor("a", {1LL << 20, 1LL << 20}, {1});
  EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_TENSOR_OUT_OF_FILE");
}

TEST(GgufHostileTest, SumOfTensorsOverflows) {
  GgufBuilder builder;
  const int64_t huge = (int64_t{1} << 61) - 1;
  builder.F32Tensor("a", {huge}, {1}).F32Tensor("b", {huge}, {1});
  EXPECT_EQ(ReasonOf(builder.Build()), "GGUF_TENSOR_OUT_OF_FILE");
}

TEST(GgufHostileTest, EveryTruncationIsRefused) {
  GgufBuilder builder = TwoTensors();
  builder.Strings("tokens", {"x", "yz"});
  const std::string file = builder.Build();
  // The last tensor fills 16 of its 32 bytes, so the file may lack that padding and nothing more.
  for (size_t size = 0; size + 16 < file.size(); ++size) {
    EXPECT_NE(ReasonOf(file.substr(0, size)), "accepted") << size;
  }
}

}  // namespace
}  // namespace sextant
