// Tests of what is accepted as a vector.
#include "services/steering_registry/vector_check.h"

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/steering_registry/test_vectors.h"

namespace sextant {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(VectorName, FollowsItsGrammar) {
  for (const std::string& name : {std::string("a"), std::string("0-_x"), std::string(63, 'z')}) {
    EXPECT_TRUE(CheckVectorName(name).ok()) << name;
  }
  for (const std::string& name : {std::string(), std::string("_a"), std::string("-a"), std::string("A"),
                                  std::string("a b"), std::string("a@1"), std::string("é"),
                                  std::string("a\0b", 3), std::string(64, 'z'), std::string("../x")}) {
    EXPECT_EQ(ErrorReason(CheckVectorName(name)), "VECTOR_NAME_INVALID") << name;
  }
}

TEST(VectorReference, ParsesNameAndVersion) {
  EXPECT_FALSE(ParseVectorReference("happy")->version.has_value());
  EXPECT_EQ(ParseVectorReference("happy@12")->name, "happy");
  EXPECT_EQ(ParseVectorReference("happy@12")->version, 12);
  for (const char* bad : {"", "@1", "happy@", "happy@0", "happy@01", "happy@-1", "happy@+1", "happy@1@2",
                          "happy@1x", "happy@99999999999", "Happy@1", "happy@ 1"}) {
    EXPECT_EQ(ErrorReason(ParseVectorReference(bad).status()), "VECTOR_REFERENCE_INVALID") << bad;
  }
}

TEST(VectorMetadata, RefusesWhatCannotBeApplied) {
  EXPECT_TRUE(CheckVectorMetadata(SomeVector("happy", {0, 29})).ok());
  const auto reason = [](auto change) {
    v1::Vector vector = SomeVector("happy");
    change(vector);
    return ErrorReason(CheckVectorMetadata(vector));
  };
  EXPECT_EQ(reason([](v1::Vector& v) { v.clear_site(); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_site(static_cast<v1::Site>(99)); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.clear_layers(); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.add_layers(14); }), "VECTOR_SHAPE");  // twice
  EXPECT_EQ(reason([](v1::Vector& v) { v.add_layers(3); }), "VECTOR_SHAPE");   // not ascending
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_layers(0, -1); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.add_layers(30); }), "VECTOR_SHAPE");  // the model has 0..29
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_hidden_size(0); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_hidden_size(-4); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_hidden_size(std::numeric_limits<int>::max()); }),
            "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_model_layer_count(0); }), "VECTOR_SHAPE");
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_model_sha256("xyz"); }), "VECTOR_METADATA_INVALID");
  EXPECT_EQ(reason([](v1::Vector& v) { v.set_description(std::string(4097, 'x')); }),
            "VECTOR_METADATA_INVALID");
  EXPECT_EQ(reason([](v1::Vector& v) { (*v.mutable_labels())[""] = "x"; }), "VECTOR_METADATA_INVALID");
  EXPECT_EQ(reason([](v1::Vector& v) {
              for (int i = 0; i < 65; ++i) (*v.mutable_labels())[std::to_string(i)] = "x";
            }),
            "VECTOR_METADATA_INVALID");
  // 17 layers of 1,048,576 numbers: 68 MiB.
  EXPECT_EQ(reason([](v1::Vector& v) {
              v.clear_layers();
              for (int i = 0; i < 17; ++i) v.add_layers(i);
              v.set_hidden_size(1 << 20);
            }),
            "VECTOR_TOO_BIG");
}

TEST(Directions, NormsAreThoseOfEachLayer) {
  const auto norms = CheckDirections(SomeVector("v", {1, 2}), Bytes({3, 0, 4, 0, 0, 0, 0, 0}));
  ASSERT_TRUE(norms.ok()) << norms.status();
  EXPECT_THAT(*norms, ElementsAre(5, 0));
}

TEST(Directions, RefusesWrongSizesAndNumbers) {
  const v1::Vector vector = SomeVector("v", {7});
  const auto reason = [&vector](const std::string& data) {
    return ErrorReason(CheckDirections(vector, data).status());
  };
  EXPECT_EQ(reason(Bytes({1, 2, 3})), "VECTOR_SHAPE");
  EXPECT_EQ(reason(Bytes({1, 2, 3, 4, 5})), "VECTOR_SHAPE");
  EXPECT_EQ(reason(Bytes({1, 2, 3, 4}).substr(1)), "VECTOR_SHAPE");
  EXPECT_EQ(reason(Bytes({1, NAN, 3, 4})), "VECTOR_NOT_FINITE");
  EXPECT_EQ(reason(Bytes({1, 2, 3, -INFINITY})), "VECTOR_NOT_FINITE");
  EXPECT_EQ(reason(Bytes({3e38f, 3e38f, 0, 0})), "VECTOR_NOT_FINITE");
  EXPECT_EQ(reason(Bytes({0, -0.f, 0, 0})), "VECTOR_ZERO");
  EXPECT_THAT(std::string(CheckDirections(vector, Bytes({1, NAN, 3, 4})).status().message()),
              HasSubstr("element 1 of the direction of layer 7 is NaN"));
}

TEST(Digest, ChangesWithEverythingTheModelWouldFeel) {
  const std::string data = Bytes({1, 2, 3, 4, 5, 6, 7, 8});
  const std::string digest = VectorDigest(SomeVector("a", {1, 2}), data);
  EXPECT_EQ(digest.size(), 64u);
  v1::Vector other = SomeVector("b", {1, 2});
  other.set_description("another description");
  EXPECT_EQ(VectorDigest(other, data), digest);
  EXPECT_NE(VectorDigest(SomeVector("a", {1, 3}), data), digest);
  other.set_site(v1::SITE_MLP_OUT);
  EXPECT_NE(VectorDigest(other, data), digest);
  EXPECT_NE(VectorDigest(SomeVector("a", {1, 2}), Bytes({2, 1, 3, 4, 5, 6, 7, 8})), digest);
  v1::Vector wide = SomeVector("a", {1});
  wide.set_hidden_size(8);
  EXPECT_NE(VectorDigest(wide, data), digest);
}

TEST(NearestNames, BestFirstAndNothingFarAway) {
  EXPECT_THAT(NearestNames("hapy", {"happy", "formal", "harpy", "sappy"}),
              ElementsAre("happy", "harpy", "sappy"));
  EXPECT_THAT(NearestNames("zzz", {"happy"}), ElementsAre());
  EXPECT_THAT(NearestNames("a", {}), ElementsAre());
}

}  // namespace
}  // namespace sextant
