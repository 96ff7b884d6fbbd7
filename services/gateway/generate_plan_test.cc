// Tests of what a request is planned to be, and of every reason it can be refused for.
#include "services/gateway/generate_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "common/activation/row_layout.h"
#include "services/gateway/errors.h"
#include "services/gateway/testing/test_model.h"

namespace sextant {
namespace {

using testing::kHidden;
using testing::kLayers;

// Knows one vector, "happy", of one direction at layer 1.
class OneVector final : public VectorSource {
 public:
  absl::StatusOr<std::shared_ptr<const StoredVector>> Get(const std::string& reference) override {
    if (reference != "happy")
      return MakeError(absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND", "there is no vector of this name");
    auto vector = std::make_shared<StoredVector>();
    vector->description = description;
    const size_t count = static_cast<size_t>(description.layers_size()) * kHidden;
    const std::vector<float> values(count, 0.5f);
    vector->directions.assign(reinterpret_cast<const char*>(values.data()), count * sizeof(float));
    return vector;
  }
  v1::Vector description = [] {
    v1::Vector vector;
    vector.set_name("happy");
    vector.set_version(1);
    vector.set_site(v1::SITE_RESID_PRE);
    vector.add_layers(1);
    vector.set_hidden_size(kHidden);
    vector.set_model_layer_count(kLayers);
    return vector;
  }();
};

v1::GenerateRequest Request() {
  v1::GenerateRequest request;
  request.set_text("hello");
  request.set_max_new_tokens(4);
  return request;
}

absl::StatusOr<GeneratePlan> Plan(const v1::GenerateRequest& request, OneVector vectors = OneVector()) {
  return PlanGenerate(request, testing::SmallModel(), GatewayLimits(), absl::Seconds(60), vectors);
}

TEST(GeneratePlan, PlainRequestRecordsNothing) {
  v1::GenerateRequest request = Request();
  request.add_stop("x");
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->prompt_ids, (std::vector<int32_t>{'h', 'e', 'l', 'l', 'o'}));
  EXPECT_FALSE(plan->capture.has_value());
  EXPECT_EQ(plan->worker_request.max_new_tokens(), 4);
  EXPECT_EQ(plan->worker_request.stop(0), "x");
  ASSERT_EQ(plan->worker_request.stop_token_ids_size(), 1);
  EXPECT_EQ(plan->worker_request.stop_token_ids(0), testing::kEos);
  EXPECT_EQ(plan->lens_wait, absl::Seconds(60));
}

TEST(GeneratePlan, IgnoreEosLeavesTheModelsOwnStopsOut) {
  v1::GenerateRequest request = Request();
  request.set_ignore_eos(true);
  EXPECT_TRUE(Plan(request)->worker_request.stop_token_ids().empty());
}

TEST(GeneratePlan, LensAlwaysRecordsTheFinalLayer) {
  v1::GenerateRequest request = Request();
  request.mutable_lens()->add_layers(0);
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const CapturePlan& capture = *plan->capture;
  EXPECT_EQ(capture.kind, internal::v1::CAPTURE_KIND_TRANSIENT);
  ASSERT_EQ(capture.spec.rows_size(), 2);
  EXPECT_EQ(capture.spec.rows(1).layer(), kLayers - 1);
  EXPECT_EQ(capture.spec.lens().final_row_index(), 1);
  ASSERT_EQ(capture.spec.lens().row_indices_size(), 1) << "and does not report it unless asked";
  EXPECT_EQ(capture.spec.lens().top_k(), 5);
  EXPECT_EQ(capture.spec.lens().lens_digest(), std::string(32, '\xbb'));
  EXPECT_EQ(capture.max_positions, 5 + 3);
  EXPECT_EQ(capture.position_bytes, 2 * kHidden * 4);
  EXPECT_EQ(capture.position_bytes, plan->worker_request.position_bytes());
  EXPECT_EQ(capture.reading_bytes, ReadingBytesBound(capture.spec));
}

TEST(GeneratePlan, LensAndCaptureShareTheirRows) {
  v1::GenerateRequest request = Request();
  request.mutable_lens()->add_sites(v1::SITE_ATTN_OUT);
  request.mutable_lens()->set_normalization(v1::NORMALIZATION_RESIDUAL);
  request.mutable_lens()->mutable_positions()->mutable_generation()->set_all(true);
  request.mutable_capture()->add_sites(v1::SITE_ATTN_OUT);
  request.mutable_capture()->add_sites(v1::SITE_ATTN_IN);
  request.mutable_capture()->mutable_positions()->mutable_prompt()->add_positions(-1);
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const CapturePlan& capture = *plan->capture;
  EXPECT_EQ(capture.kind, internal::v1::CAPTURE_KIND_KEPT);
  EXPECT_EQ(capture.ttl_seconds, 3600);
  EXPECT_TRUE(capture.spec.has_scales());
  EXPECT_EQ(capture.spec.rows_size(), 2 * kLayers + 1);
  EXPECT_EQ(capture.spec.lens().row_indices_size(), kLayers);
  EXPECT_EQ(capture.max_positions, 1 + 3) << "the last of the prompt, and what is generated";
  ASSERT_EQ(capture.record_positions.prompt().windows_size(), 1);
  EXPECT_EQ(capture.record_positions.prompt().windows(0).begin(), 4);
  EXPECT_FALSE(capture.lens_positions.has_prompt());
}

TEST(GeneratePlan, PromptLogprobsAddTheirOwnLens) {
  v1::GenerateRequest request = Request();
  request.set_prompt_logprobs(true);
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capture->client_row_count, 0);
  EXPECT_EQ(plan->capture->prompt_logprob_row, 0);
  EXPECT_EQ(plan->capture->spec.lens().top_k(), 1);
  EXPECT_EQ(plan->capture->max_positions, 4) << "all of the prompt but its last";
  EXPECT_FALSE(plan->capture->lens_positions.has_generation());

  request.mutable_lens()->add_layers(1);
  const auto with_lens = Plan(request);
  ASSERT_TRUE(with_lens.ok()) << with_lens.status();
  EXPECT_EQ(with_lens->capture->client_row_count, 1);
  EXPECT_EQ(with_lens->capture->prompt_logprob_row, 1);
  EXPECT_EQ(with_lens->capture->spec.lens().row_indices_size(), 2);

  request.set_text("h");
  request.clear_lens();
  EXPECT_FALSE(Plan(request)->capture.has_value()) << "a single token has nothing before it";
}

TEST(GeneratePlan, OneDirectionServesEveryLayerAskedFor) {
  v1::GenerateRequest request = Request();
  v1::Intervention* intervention = request.add_interventions();
  intervention->set_vector("happy");
  intervention->add_layers(2);
  intervention->add_layers(0);
  intervention->set_site(v1::SITE_MLP_OUT);
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto& resolved = plan->worker_request.interventions(0);
  EXPECT_EQ(resolved.site(), v1::SITE_MLP_OUT);
  EXPECT_EQ(resolved.layers(0), 0);
  EXPECT_EQ(resolved.layers(1), 2);
  EXPECT_EQ(resolved.directions().size(), 2u * kHidden * 4);
  EXPECT_EQ(resolved.strength(), 1);
  EXPECT_EQ(resolved.operator_(), v1::STEERING_OPERATOR_ADD);
}

TEST(GeneratePlan, AnotherDigestIsAWarningUnlessStrict) {
  OneVector vectors;
  vectors.description.set_model_sha256(std::string(64, 'c'));
  v1::GenerateRequest request = Request();
  request.add_interventions()->set_vector("happy");
  const auto plan = Plan(request, vectors);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->warnings.size(), 1u);
  EXPECT_EQ(plan->warnings[0].reason(), "VECTOR_MODEL_DIGEST_DIFFERS");
  request.mutable_interventions(0)->set_strict(true);
  EXPECT_EQ(Plan(request, vectors).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(GeneratePlan, StoredVectorsMustFitTheModel) {
  v1::GenerateRequest request = Request();
  request.add_interventions()->set_vector("happy");
  OneVector wide, deep;
  wide.description.set_hidden_size(kHidden + 1);
  deep.description.set_model_layer_count(kLayers + 1);
  EXPECT_EQ(ErrorReason(Plan(request, wide).status()), "VECTOR_WIDTH");
  EXPECT_EQ(ErrorReason(Plan(request, deep).status()), "VECTOR_LAYER_COUNT");
}

// An intervention with a good inline vector at layer 1.
v1::Intervention* AddInline(v1::GenerateRequest* request, float value = 1) {
  v1::InlineVector* vector = request->add_interventions()->mutable_inline_vector();
  vector->add_layers(1);
  vector->set_site(v1::SITE_RESID_POST);
  for (int i = 0; i < kHidden; ++i) {
    vector->mutable_data()->append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return request->mutable_interventions(request->interventions_size() - 1);
}

struct Refusal {
  const char* name;
  std::function<void(v1::GenerateRequest&)> change;
  absl::StatusCode code;
  const char* reason;
};

class GenerateRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(GenerateRefusal, HasItsCodeAndReason) {
  v1::GenerateRequest request = Request();
  GetParam().change(request);
  const absl::Status status = Plan(request).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_EQ(ErrorReason(status), GetParam().reason) << status;
  EXPECT_GT(status.message().size(), 20u);
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
using R = v1::GenerateRequest;

INSTANTIATE_TEST_SUITE_P(
    Input, GenerateRefusal,
    ::testing::Values(
        Refusal{"NoInput", [](R& r) { r.clear_text(); }, kInvalid, "INPUT_MISSING"},
        Refusal{"EmptyText", [](R& r) { r.set_text(""); }, kInvalid, "PROMPT_EMPTY"},
        Refusal{"EmptyIds", [](R& r) { r.mutable_token_ids(); }, kInvalid, "PROMPT_EMPTY"},
        Refusal{"LongText", [](R& r) { r.set_text(std::string(2 << 20, 'a')); }, kInvalid, "TEXT_TOO_LONG"},
        Refusal{"LongPrompt", [](R& r) { r.set_text(std::string(61, 'a')); }, kInvalid, "PROMPT_TOO_LONG"},
        Refusal{"NegativeId", [](R& r) { r.mutable_token_ids()->add_ids(-1); }, kInvalid, "TOKEN_UNKNOWN"},
        Refusal{"HugeId", [](R& r) { r.mutable_token_ids()->add_ids(260); }, kInvalid, "TOKEN_UNKNOWN"},
        Refusal{"EmptyChat", [](R& r) { r.mutable_chat(); }, kInvalid, "CHAT_EMPTY"},
        Refusal{"BadRole", [](R& r) { r.mutable_chat()->add_messages()->set_role("x"); }, kInvalid,
                "CHAT_ROLE_UNKNOWN"},
        Refusal{"NegativeNew", [](R& r) { r.set_max_new_tokens(-1); }, kInvalid, "MAX_NEW_TOKENS"},
        Refusal{"ManyNew", [](R& r) { r.set_max_new_tokens(51); }, kInvalid, "MAX_NEW_TOKENS"},
        Refusal{"ManyPositions",
                [](R& r) {
                  r.set_text(std::string(60, 'a'));
                  r.set_max_new_tokens(50);
                },
                kInvalid, "TOO_MANY_POSITIONS"}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Sampling, GenerateRefusal,
    ::testing::Values(
        Refusal{"ColdTemperature", [](R& r) { r.mutable_sampling()->set_temperature(-1); }, kInvalid,
                "TEMPERATURE"},
        Refusal{"NanTemperature", [](R& r) { r.mutable_sampling()->set_temperature(std::nanf("")); },
                kInvalid, "TEMPERATURE"},
        Refusal{"TopK", [](R& r) { r.mutable_sampling()->set_top_k(-1); }, kInvalid, "SAMPLING_TOP_K"},
        Refusal{"TopP", [](R& r) { r.mutable_sampling()->set_top_p(1.5f); }, kInvalid, "TOP_P"},
        Refusal{"ManyStops",
                [](R& r) {
                  for (int i = 0; i < 17; ++i) r.add_stop("x");
                },
                kInvalid, "TOO_MANY_STOPS"},
        Refusal{"EmptyStop", [](R& r) { r.add_stop(""); }, kInvalid, "STOP_LENGTH"},
        Refusal{"LongStop", [](R& r) { r.add_stop(std::string(257, 'a')); }, kInvalid, "STOP_LENGTH"},
        Refusal{"StopId", [](R& r) { r.add_stop_token_ids(-5); }, kInvalid, "TOKEN_UNKNOWN"},
        Refusal{"LensWait", [](R& r) { r.set_lens_wait_ms(-1); }, kInvalid, "LENS_WAIT"}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Lens, GenerateRefusal,
    ::testing::Values(
        Refusal{"Inline", [](R& r) { r.mutable_lens()->set_mode(v1::LENS_MODE_INLINE); }, kUnimplemented,
                "INLINE_LENS_UNAVAILABLE"},
        Refusal{"Normed", [](R& r) { r.mutable_lens()->add_sites(v1::SITE_MLP_IN); }, kInvalid,
                "SITE_NORMED"},
        Refusal{"SiteZero", [](R& r) { r.mutable_lens()->add_sites(v1::SITE_UNSPECIFIED); }, kInvalid,
                "SITE_UNKNOWN"},
        Refusal{"SiteUnknown", [](R& r) { r.mutable_lens()->add_sites(static_cast<v1::Site>(99)); }, kInvalid,
                "SITE_UNKNOWN"},
        Refusal{"Layer", [](R& r) { r.mutable_lens()->add_layers(kLayers); }, kInvalid, "LAYER_OUT_OF_RANGE"},
        Refusal{"NegativeLayer", [](R& r) { r.mutable_lens()->add_layers(-1); }, kInvalid,
                "LAYER_OUT_OF_RANGE"},
        Refusal{"LayerTwice",
                [](R& r) {
                  r.mutable_lens()->add_layers(1);
                  r.mutable_lens()->add_layers(1);
                },
                kInvalid, "ROWS_REPEATED"},
        Refusal{"TopK", [](R& r) { r.mutable_lens()->set_top_k(101); }, kInvalid, "TOP_K"},
        Refusal{"Targets",
                [](R& r) {
                  for (int i = 0; i < 17; ++i) r.mutable_lens()->add_target_ids(i);
                },
                kInvalid, "TOO_MANY_TARGETS"},
        Refusal{"Target", [](R& r) { r.mutable_lens()->add_target_ids(999); }, kInvalid, "TOKEN_UNKNOWN"},
        Refusal{"EmptyClause", [](R& r) { r.mutable_lens()->mutable_positions(); }, kInvalid,
                "POSITIONS_EMPTY"},
        Refusal{"OutOfReach",
                [](R& r) { r.mutable_lens()->mutable_positions()->mutable_prompt()->add_positions(50); },
                kInvalid, "LENS_SELECTS_NOTHING"},
        Refusal{"LogprobsWithTargets",
                [](R& r) {
                  r.set_prompt_logprobs(true);
                  r.mutable_lens()->add_target_ids(1);
                },
                kInvalid, "PROMPT_LOGPROBS_NEED_NEXT_TOKEN"}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Capture, GenerateRefusal,
    ::testing::Values(Refusal{"NoSites", [](R& r) { r.mutable_capture(); }, kInvalid, "SITES_MISSING"},
                      Refusal{"Spill",
                              [](R& r) {
                                r.mutable_capture()->add_sites(v1::SITE_RESID_POST);
                                r.mutable_capture()->set_overflow(v1::OVERFLOW_POLICY_SPILL);
                              },
                              kUnimplemented, "OVERFLOW_POLICY_UNAVAILABLE"},
                      Refusal{"Ttl",
                              [](R& r) {
                                r.mutable_capture()->add_sites(v1::SITE_RESID_POST);
                                r.mutable_capture()->set_ttl_seconds(604'801);
                              },
                              kInvalid, "TTL"},
                      Refusal{"Label",
                              [](R& r) {
                                r.mutable_capture()->add_sites(v1::SITE_RESID_POST);
                                r.mutable_capture()->set_label(std::string(257, 'a'));
                              },
                              kInvalid, "LABEL_TOO_LONG"},
                      Refusal{"OutOfReach",
                              [](R& r) {
                                r.mutable_capture()->add_sites(v1::SITE_RESID_POST);
                                r.mutable_capture()->mutable_positions()->mutable_generation()->add_positions(
                                    40);
                              },
                              kInvalid, "CAPTURE_SELECTS_NOTHING"},
                      Refusal{"ExcludesDiffer",
                              [](R& r) {
                                v1::Positions* a = r.mutable_capture()->mutable_positions();
                                r.mutable_capture()->add_sites(v1::SITE_RESID_POST);
                                a->mutable_generation()->set_all(true);
                                a->mutable_exclude_generation()->add_positions(0);
                                v1::Positions* b = r.mutable_lens()->mutable_positions();
                                b->mutable_generation()->set_all(true);
                                b->mutable_exclude_generation()->add_positions(1);
                              },
                              kInvalid, "POSITIONS_EXCLUDE_DIFFERENTLY"},
                      Refusal{"TooBig",
                              [](R& r) {
                                for (int site = 1; site <= 7; ++site)
                                  r.mutable_capture()->add_sites(static_cast<v1::Site>(site));
                              },
                              absl::StatusCode::kResourceExhausted, "POSITION_TOO_BIG"}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Steering, GenerateRefusal,
    ::testing::Values(
        Refusal{"NoVector", [](R& r) { r.add_interventions(); }, kInvalid, "VECTOR_MISSING"},
        Refusal{"UnknownName", [](R& r) { r.add_interventions()->set_vector("sad"); },
                absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND"},
        Refusal{"Many",
                [](R& r) {
                  for (int i = 0; i < 17; ++i) AddInline(&r);
                },
                kInvalid, "TOO_MANY_INTERVENTIONS"},
        Refusal{"Width", [](R& r) { AddInline(&r)->mutable_inline_vector()->mutable_data()->pop_back(); },
                kInvalid, "VECTOR_SHAPE"},
        Refusal{"NoLayers", [](R& r) { AddInline(&r)->mutable_inline_vector()->clear_layers(); }, kInvalid,
                "VECTOR_LAYERS"},
        Refusal{"InlineLayer", [](R& r) { AddInline(&r)->mutable_inline_vector()->set_layers(0, 9); },
                kInvalid, "LAYER_OUT_OF_RANGE"},
        Refusal{"Layer", [](R& r) { AddInline(&r)->add_layers(-1); }, kInvalid, "LAYER_OUT_OF_RANGE"},
        Refusal{"Nan", [](R& r) { AddInline(&r, std::nanf("")); }, kInvalid, "VECTOR_NOT_FINITE"},
        Refusal{"Infinite", [](R& r) { AddInline(&r, std::numeric_limits<float>::infinity()); }, kInvalid,
                "VECTOR_NOT_FINITE"},
        Refusal{"NoSite", [](R& r) { AddInline(&r)->mutable_inline_vector()->clear_site(); }, kInvalid,
                "SITE_UNKNOWN"},
        Refusal{"Strength", [](R& r) { AddInline(&r)->set_strength(std::nanf("")); }, kInvalid,
                "STRENGTH_NOT_FINITE"},
        Refusal{"Operator", [](R& r) { AddInline(&r)->set_operator_(static_cast<v1::SteeringOperator>(77)); },
                kInvalid, "OPERATOR_UNKNOWN"},
        Refusal{"Clamp",
                [](R& r) {
                  v1::Intervention* intervention = AddInline(&r);
                  intervention->set_operator_(v1::STEERING_OPERATOR_CLAMP);
                  intervention->set_low(2);
                  intervention->set_high(1);
                },
                kInvalid, "CLAMP_RANGE"},
        Refusal{"EmptyClause", [](R& r) { AddInline(&r)->mutable_positions(); }, kInvalid, "POSITIONS_EMPTY"},
        Refusal{"CannotTouch",
                [](R& r) {
                  AddInline(&r)->mutable_positions()->mutable_generation()->set_all(true);
                  r.set_max_new_tokens(1);
                },
                kInvalid, "INTERVENTION_CANNOT_TOUCH"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace sextant
