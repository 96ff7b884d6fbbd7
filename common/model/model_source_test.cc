// Tests that folder and GGUF give the same weights, that what does not fit is refused, and that digests tell
// models apart.
#include "common/model/model_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "common/base/error.h"
#include "common/model/model_digest.h"
#include "common/model/testing/gguf_builder.h"
#include "common/model/testing/temporary_folder.h"
#include "common/model/testing/tiny_model.h"

namespace sextant {
namespace {

std::string FaultOf(const std::string& path) {
  const auto source = OpenModel(path);
  return source.ok() ? "accepted" : ErrorReason(source.status());
}

std::vector<float> ReadAll(const ModelSource& source, WeightId id) {
  const WeightShape shape = ShapeOf(source.spec(), id.kind);
  std::vector<float> values(shape.rows * shape.cols);
  const auto rows = source.Rows(id);
  EXPECT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE((*rows)(0, shape.rows, values.data()).ok());
  return values;
}

TEST(ModelSourceTest, FolderAndGgufGiveTheSameRows) {
  TemporaryFolder folder;
  TinyModel model(TinyModel::Spec());
  model.WriteHf(folder);
  const auto hf = OpenModel(folder.path());
  const auto gguf = OpenModel(model.WriteGguf(folder));
  ASSERT_TRUE(hf.ok()) << hf.status();
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ((*gguf)->spec().vocab_size, model.spec().vocab_size);
  EXPECT_EQ((*gguf)->spec().eos_token_ids, model.spec().eos_token_ids);
  EXPECT_EQ((*gguf)->spec().norm_eps, (*hf)->spec().norm_eps);
  for (const WeightId id : WeightsOf(model.spec())) {
    EXPECT_EQ(ReadAll(**hf, id), model.values(id)) << static_cast<int>(id.kind);
    EXPECT_EQ(ReadAll(**gguf, id), model.values(id)) << static_cast<int>(id.kind);
  }
}

TEST(ModelSourceTest, PartsOfRowsAreThoseOfTheWhole) {
  TemporaryFolder folder;
  TinyModel model(TinyModel::Spec());
  const auto gguf = OpenModel(model.WriteGguf(folder));
  ASSERT_TRUE(gguf.ok());
  const auto rows = (*gguf)->Rows({WeightKind::kQuery, 1});
  ASSERT_TRUE(rows.ok());
  const int64_t cols = model.spec().hidden_size;
  std::vector<float> part(3 * cols);
  ASSERT_TRUE((*rows)(17, 3, part.data()).ok());
  const std::vector<float>& whole = model.values({WeightKind::kQuery, 1});
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 17 * cols));
}

TEST(ModelSourceTest, TiedHeadReadsTheEmbeddingEvenWhenAHeadIsThere) {
  TemporaryFolder folder;
  TinyModel model(TinyModel::Spec());
  model.WriteHf(folder);
  std::string config;
  {
    std::ifstream in(folder.path() + "/config.json");
    std::getline(in, config, '\0');
  }
  const size_t place = config.find("\"tie_word_embeddings\":false");
  ASSERT_NE(place, std::string::npos);
  folder.Write("config.json", config.replace(place, 27, "\"tie_word_embeddings\":true"));
  const auto source = OpenModel(folder.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(ReadAll(**source, {WeightKind::kHead, 0}), model.values({WeightKind::kEmbedding, 0}));
}

TEST(ModelSourceTest, WeightsThatDoNotFitAreRefused) {
  TemporaryFolder folder;
  ModelSpec spec = TinyModel::Spec();
  TinyModel(spec).WriteHf(folder);
  std::filesystem::copy_file(folder.path() + "/model.safetensors", folder.path() + "/kept");
  spec.feed_forward_size += 16;
  TinyModel(spec).WriteHf(folder);
  std::filesystem::rename(folder.path() + "/kept", folder.path() + "/model.safetensors");
  EXPECT_EQ(FaultOf(folder.path()), "MODEL_TENSOR_SHAPE");
}

TEST(ModelSourceTest, MissingWeightsAreRefused) {
  TemporaryFolder folder;
  ModelSpec spec = TinyModel::Spec();
  spec.family = "qwen3";
  spec.qk_norm = true;
  TinyModel(spec).WriteHf(folder);
  EXPECT_EQ(FaultOf(folder.path()), "accepted");
  spec.qk_norm = false;  // the family says that there are some
  TinyModel(spec).WriteHf(folder);
  EXPECT_EQ(FaultOf(folder.path()), "MODEL_TENSOR_MISSING");
}

TEST(ModelSourceTest, WeightsThatNothingReadsAreRefused) {
  TemporaryFolder folder;
  ModelSpec spec = TinyModel::Spec();
  TinyModel(spec).WriteHf(folder);
  std::filesystem::copy_file(folder.path() + "/config.json", folder.path() + "/kept");
  spec.qkv_bias = true;
  TinyModel(spec).WriteHf(folder);
  std::filesystem::rename(folder.path() + "/kept", folder.path() + "/config.json");
  const auto source = OpenModel(folder.path());
  EXPECT_EQ(ErrorReason(source.status()), "MODEL_UNSUPPORTED");
  EXPECT_NE(source.status().message().find("_proj.bias"), absl::string_view::npos) << source.status();
  EXPECT_EQ(FaultOf(TinyModel(spec).WriteGguf(folder)), "MODEL_UNSUPPORTED");
}

TEST(ModelSourceTest, PathsThatAreNoModel) {
  TemporaryFolder folder;
  EXPECT_EQ(FaultOf(folder.path() + "/nothing"), "MODEL_FILE_MISSING");
  EXPECT_EQ(FaultOf(folder.path()), "MODEL_FILE_MISSING");
  EXPECT_EQ(FaultOf(folder.Write("a.safetensors", "x")), "MODEL_UNSUPPORTED");
  EXPECT_EQ(FaultOf(folder.Write("a.bin", std::string(100, 'x'))), "GGUF_MAGIC");
  GgufBuilder other;
  other.String("general.architecture", "gpt2");
  EXPECT_EQ(FaultOf(folder.Write("gpt2.gguf", other.Build())), "MODEL_UNSUPPORTED");
  EXPECT_EQ(FaultOf(folder.Write("empty.gguf", GgufBuilder().Build())), "GGUF_KEY_MISSING");
}

TEST(ModelSourceTest, NotFiniteWeightsAreRefusedWhenRead) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    TemporaryFolder folder;
    TinyModel model(TinyModel::Spec());
    model.values({WeightKind::kDown, 1})[7] = bad;
    model.WriteHf(folder);
    const auto source = OpenModel(folder.path());
    ASSERT_TRUE(source.ok());
    const auto rows = (*source)->Rows({WeightKind::kDown, 1});
    std::vector<float> row(model.spec().feed_forward_size);
    EXPECT_EQ(ErrorReason((*rows)(0, 1, row.data())), "MODEL_WEIGHTS_NOT_FINITE");
    EXPECT_TRUE((*rows)(1, 1, row.data()).ok());
  }
}

TEST(ModelSourceTest, FileThatShrinksGivesAnErrorNotACrash) {
  TemporaryFolder folder;
  TinyModel model(TinyModel::Spec());
  const std::string path = model.WriteGguf(folder);
  const auto source = OpenModel(path);
  ASSERT_TRUE(source.ok());
  std::filesystem::resize_file(path, 4096);
  std::vector<float> row(model.spec().feed_forward_size);
  EXPECT_EQ(ErrorReason((*(*source)->Rows({WeightKind::kDown, 1}))(0, 1, row.data())), "MODEL_FILE_CHANGED");
}

// ---- digests

TEST(ModelDigestTest, OfOneFileIsItsSha256AndComesFromTheCacheTheSecondTime) {
  TemporaryFolder folder, cache;
  TinyModel model(TinyModel::Spec());
  const std::string path = model.WriteGguf(folder);
  const auto source = OpenModel(path);
  ASSERT_TRUE(source.ok());
  const auto digest = DigestModel(**source, cache.path() + "/deep/folder");
  ASSERT_TRUE(digest.ok()) << digest.status();
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(digest->weights_sha256, Sha256Hex(bytes));
  EXPECT_EQ(digest->lens_digest.size(), 32u);
  EXPECT_EQ(*LensDigest(**source), digest->lens_digest);
  // Other digests in the cache show that the second answer was not computed.
  for (const auto& entry : std::filesystem::directory_iterator(cache.path() + "/deep/folder")) {
    std::ofstream(entry.path()) << "sextant-model-digest-1\n"
                                << std::string(64, 'a') << "\n"
                                << std::string(64, 'b');
  }
  const auto again = DigestModel(**OpenModel(path), cache.path() + "/deep/folder");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->weights_sha256, std::string(64, 'a'));
}

TEST(ModelDigestTest, AChangedFileIsReadAgain) {
  TemporaryFolder folder, cache;
  const std::string path = TinyModel(TinyModel::Spec()).WriteGguf(folder);
  const auto source = OpenModel(path);
  ASSERT_TRUE(source.ok());
  const auto digest = DigestModel(**source, cache.path());
  ASSERT_TRUE(digest.ok()) << digest.status();
  // Another file of the same size and modification time is put in its place.
  const auto time = std::filesystem::last_write_time(path);
  const std::string other = path + ".new";
  std::filesystem::copy_file(path, other);
  {
    std::fstream out(other, std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(-4, std::ios::end);
    out << 'x';
  }
  std::filesystem::last_write_time(other, time);
  std::filesystem::rename(other, path);
  const auto replaced = DigestModel(**OpenModel(path), cache.path());
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_NE(replaced->weights_sha256, digest->weights_sha256);
  const auto reopened = OpenModel(path);
  ASSERT_TRUE(reopened.ok());
  std::filesystem::last_write_time(path, time + std::chrono::seconds(1));
  EXPECT_EQ(ErrorReason(DigestModel(**reopened, "").status()), "MODEL_FILE_CHANGED");
}

TEST(ModelDigestTest, DamagedCacheIsPassedBy) {
  TemporaryFolder folder, cache;
  const auto source = OpenModel(TinyModel(TinyModel::Spec()).WriteGguf(folder));
  ASSERT_TRUE(source.ok());
  const auto digest = DigestModel(**source, cache.path());
  ASSERT_TRUE(digest.ok());
  for (const auto& entry : std::filesystem::directory_iterator(cache.path())) {
    std::ofstream(entry.path()) << "sextant-model-digest-1 zz zz";
  }
  EXPECT_EQ(DigestModel(**source, cache.path())->weights_sha256, digest->weights_sha256);
  EXPECT_EQ(DigestModel(**source, "/proc/no/such/place")->weights_sha256, digest->weights_sha256);
}

TEST(ModelDigestTest, LensDigestSeesNormHeadAndEpsilonOnly) {
  const auto lens = [](TinyModel model) {
    TemporaryFolder folder;
    const auto source = OpenModel(model.WriteGguf(folder));
    return *LensDigest(**source);
  };
  const TinyModel model(TinyModel::Spec());
  const std::string digest = lens(model);
  TinyModel changed = model;
  changed.values({WeightKind::kUp, 0})[0] += 1;
  EXPECT_EQ(lens(changed), digest);
  changed.values({WeightKind::kHead, 0})[5] += 1;
  EXPECT_NE(lens(changed), digest);
  changed = model;
  changed.values({WeightKind::kFinalNorm, 0})[5] += 1;
  EXPECT_NE(lens(changed), digest);
  ModelSpec spec = TinyModel::Spec();
  spec.norm_eps = 1e-6f;
  EXPECT_NE(lens(TinyModel(spec)), digest);
}

}  // namespace
}  // namespace sextant
