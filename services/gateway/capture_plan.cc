// What a request records: the rows of each position, which positions, and what the lens makes of them.
#include "services/gateway/capture_plan.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/activation/positions.h"
#include "common/activation/row_layout.h"
#include "common/activation/site.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/position_union.h"

namespace sextant {
namespace {

constexpr int kDefaultTopK = 5;
constexpr int kDefaultTtlSeconds = 3600;
constexpr int kMaxTtlSeconds = 604'800;
constexpr size_t kMaxLabelBytes = 256;

struct Row {
  v1::Site site;
  int32_t layer;
};

// The rows sites x layers, site by site, layers ascending.
absl::StatusOr<std::vector<Row>> Rows(absl::string_view what,
                                      const google::protobuf::RepeatedField<int>& sites,
                                      const google::protobuf::RepeatedField<int32_t>& layers,
                                      int layer_count) {
  std::vector<int32_t> selected(layers.begin(), layers.end());
  for (const int32_t layer : selected) {
    if (layer < 0 || layer >= layer_count) return LayerOutOfRange(what, layer, layer_count);
  }
  if (selected.empty()) {
    for (int32_t layer = 0; layer < layer_count; ++layer) selected.push_back(layer);
  }
  std::sort(selected.begin(), selected.end());
  if (std::adjacent_find(selected.begin(), selected.end()) != selected.end()) {
    return RequestInvalid("ROWS_REPEATED", absl::StrCat(what, " names a layer twice"));
  }
  std::vector<Row> rows;
  absl::flat_hash_set<int> seen;
  for (const int site : sites) {
    if (site <= v1::SITE_UNSPECIFIED || site > v1::SITE_RESID_POST) return SiteUnknown(what, site);
    if (!seen.insert(site).second)
      return RequestInvalid("ROWS_REPEATED", absl::StrCat(what, " names a site twice"));
    for (const int32_t layer : selected) rows.push_back({static_cast<v1::Site>(site), layer});
  }
  return rows;
}

// The index of `row` in the spec, which gets it if it lacks it.
int32_t IndexOfRow(const Row& row, internal::v1::CaptureSpec* spec) {
  if (const auto index = FindRow(*spec, row.site, row.layer); index.has_value()) return *index;
  internal::v1::RowKey* key = spec->add_rows();
  key->set_site(row.site);
  key->set_layer(row.layer);
  return spec->rows_size() - 1;
}

absl::StatusOr<std::vector<Row>> LensRows(const v1::LensSettings& lens, int layer_count) {
  google::protobuf::RepeatedField<int> sites = lens.sites();
  if (sites.empty()) sites.Add(v1::SITE_RESID_POST);
  for (const int site : sites) {
    if (v1::Site_IsValid(site) && IsNormed(static_cast<v1::Site>(site))) {
      return RequestInvalid("SITE_NORMED",
                            absl::StrCat("the lens cannot read ", SiteName(static_cast<v1::Site>(site)),
                                         ", which is normed already; use resid_pre, attn_out, "
                                         "resid_mid, mlp_out or resid_post"));
    }
  }
  return Rows("lens", sites, lens.layers(), layer_count);
}

absl::Status CheckLens(const v1::LensSettings& lens, bool prompt_logprobs, const v1::Model& model,
                       const GatewayLimits& limits) {
  if (lens.mode() == v1::LENS_MODE_INLINE) {
    return NotImplemented("INLINE_LENS_UNAVAILABLE",
                          "this server does not decode inline; leave lens.mode unset or ask for DEFERRED");
  }
  if (lens.top_k() < 0 || lens.top_k() > limits.max_top_k) {
    return RequestInvalid("TOP_K", absl::StrCat("lens.top_k is ", lens.top_k(), "; it must be within 1..",
                                                limits.max_top_k, " (0: ", kDefaultTopK, ")"));
  }
  if (lens.target_ids_size() > limits.max_targets) {
    return RequestInvalid("TOO_MANY_TARGETS",
                          absl::StrCat("lens.target_ids has ", lens.target_ids_size(), " ids; at most ",
                                       limits.max_targets, " are accepted"));
  }
  for (const int32_t id : lens.target_ids()) {
    if (id < 0 || id >= model.vocab_size()) return TokenUnknown(id, model.vocab_size());
  }
  if (prompt_logprobs && !lens.target_ids().empty()) {
    return RequestInvalid("PROMPT_LOGPROBS_NEED_NEXT_TOKEN",
                          "prompt_logprobs need the lens to report the token that came next; leave out "
                          "lens.target_ids, or send two requests");
  }
  return absl::OkStatus();
}

absl::Status CheckSelects(absl::string_view what, absl::string_view reason, const v1::Positions* positions,
                          absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens) {
  if (positions == nullptr) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(const PositionClause clause,
                           PositionClause::Compile(*positions, static_cast<int32_t>(prompt_ids.size())));
  if (clause.CanSelect(prompt_ids, max_new_tokens)) return absl::OkStatus();
  return RequestInvalid(reason,
                        absl::StrCat(what,
                                     ".positions selects no position that this request can have; change "
                                     "it or leave it out"));
}

const v1::Positions* LensPositions(const v1::GenerateRequest& request) {
  return request.lens().has_positions() ? &request.lens().positions() : nullptr;
}

const v1::Positions* CapturePositions(const v1::GenerateRequest& request) {
  return request.capture().has_positions() ? &request.capture().positions() : nullptr;
}

absl::Status AddKept(const v1::CaptureSettings& capture, int layer_count, CapturePlan* plan) {
  if (capture.overflow() == v1::OVERFLOW_POLICY_SPILL || capture.overflow() == v1::OVERFLOW_POLICY_DROP) {
    return NotImplemented(
        "OVERFLOW_POLICY_UNAVAILABLE",
        "this server stalls a sequence whose rows cannot be taken; leave capture.overflow unset");
  }
  if (capture.sites().empty()) {
    return RequestInvalid("SITES_MISSING", "capture names no sites; name at least one, e.g. resid_post");
  }
  if (capture.ttl_seconds() < 0 || capture.ttl_seconds() > kMaxTtlSeconds) {
    return RequestInvalid("TTL", absl::StrCat("capture.ttl_seconds must be within 1..", kMaxTtlSeconds,
                                              " (0: ", kDefaultTtlSeconds, ")"));
  }
  if (capture.label().size() > kMaxLabelBytes) {
    return RequestInvalid("LABEL_TOO_LONG", absl::StrCat("capture.label has ", capture.label().size(),
                                                         " bytes; at most ", kMaxLabelBytes));
  }
  SEXTANT_ASSIGN_OR_RETURN(const auto rows, Rows("capture", capture.sites(), capture.layers(), layer_count));
  for (const Row& row : rows) IndexOfRow(row, &plan->spec);
  plan->kind = internal::v1::CAPTURE_KIND_KEPT;
  plan->ttl_seconds = capture.ttl_seconds() == 0 ? kDefaultTtlSeconds : capture.ttl_seconds();
  plan->label = capture.label();
  if (capture.record() == v1::RECORD_BEFORE_STEERING) plan->spec.set_record(v1::RECORD_BEFORE_STEERING);
  return absl::OkStatus();
}

// Adds the lens's rows: those the client asked for, then the final layer's resid_post if a log-probability of
// the prompt has to be read off it.
absl::Status AddLens(const v1::GenerateRequest& request, bool scores_prompt, const v1::Model& model,
                     CapturePlan* plan) {
  const Row final_row = {v1::SITE_RESID_POST, model.layer_count() - 1};
  internal::v1::LensPlan* lens = plan->spec.mutable_lens();
  if (request.has_lens()) {
    SEXTANT_ASSIGN_OR_RETURN(const auto rows, LensRows(request.lens(), model.layer_count()));
    for (const Row& row : rows) {
      lens->add_row_indices(IndexOfRow(row, &plan->spec));
      if (request.lens().normalization() == v1::NORMALIZATION_RESIDUAL && IsContribution(row.site)) {
        plan->spec.set_has_scales(true);
      }
    }
    plan->client_row_count = lens->row_indices_size();
    lens->set_normalization(request.lens().normalization());
    *lens->mutable_target_ids() = request.lens().target_ids();
    lens->set_tracked(request.lens().tracked());
  }
  const int32_t final_index = IndexOfRow(final_row, &plan->spec);
  lens->set_final_row_index(final_index);
  if (scores_prompt) {
    const auto& indices = lens->row_indices();
    const auto found = std::find(indices.begin(), indices.end(), final_index);
    plan->prompt_logprob_row = static_cast<int>(found - indices.begin());
    if (found == indices.end()) lens->add_row_indices(final_index);
  }
  const int default_top_k = request.has_lens() ? kDefaultTopK : 1;
  lens->set_top_k(request.lens().top_k() == 0 ? default_top_k : request.lens().top_k());
  lens->set_lens_digest(absl::HexStringToBytes(model.lens_sha256()));
  return absl::OkStatus();
}

// The positions whose readings hold the prompt's log-probabilities: all but the last of the prompt.
v1::Positions ScoredPositions(absl::Span<const int32_t> prompt_ids) {
  v1::Positions positions;
  v1::Window* window = positions.mutable_prompt()->add_windows();
  window->set_begin(0);
  window->set_end(static_cast<int32_t>(prompt_ids.size()) - 1);
  return positions;
}

absl::Status SetPositions(const v1::GenerateRequest& request, bool scores_prompt,
                          absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens, CapturePlan* plan) {
  if (plan->has_lens()) {
    const v1::Positions scored = ScoredPositions(prompt_ids);
    const v1::Positions* of_client = LensPositions(request);
    const v1::Positions* first = request.has_lens() ? of_client : &scored;
    const v1::Positions* second = scores_prompt ? &scored : first;
    SEXTANT_ASSIGN_OR_RETURN(plan->lens_positions, UnionPositions(first, second, prompt_ids));
  }
  const v1::Positions* lens = &plan->lens_positions;
  const v1::Positions* kept = CapturePositions(request);
  const v1::Positions* first = plan->has_lens() ? lens : kept;
  const v1::Positions* second = request.has_capture() ? kept : lens;
  SEXTANT_ASSIGN_OR_RETURN(plan->record_positions, UnionPositions(first, second, prompt_ids));
  SEXTANT_ASSIGN_OR_RETURN(plan->max_positions,
                           MostPositions(&plan->record_positions, prompt_ids, max_new_tokens));
  plan->max_positions = std::max(plan->max_positions, 1);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<CapturePlan>> PlanCapture(const v1::GenerateRequest& request,
                                                       const ServedModel& served,
                                                       absl::Span<const int32_t> prompt_ids,
                                                       int32_t max_new_tokens, const GatewayLimits& limits) {
  const v1::Model& model = served.model();
  const bool scores_prompt = request.prompt_logprobs() && prompt_ids.size() > 1;
  if (!request.has_lens() && !request.has_capture() && !scores_prompt) return std::optional<CapturePlan>();
  if (request.has_lens()) {
    SEXTANT_RETURN_IF_ERROR(CheckLens(request.lens(), request.prompt_logprobs(), model, limits));
    SEXTANT_RETURN_IF_ERROR(
        CheckSelects("lens", "LENS_SELECTS_NOTHING", LensPositions(request), prompt_ids, max_new_tokens));
  }
  CapturePlan plan;
  plan.spec.set_dtype(served.engine.row_dtype());
  plan.spec.set_hidden_size(model.hidden_size());
  plan.spec.set_record(v1::RECORD_AFTER_STEERING);
  if (request.has_capture()) {
    SEXTANT_RETURN_IF_ERROR(CheckSelects("capture", "CAPTURE_SELECTS_NOTHING", CapturePositions(request),
                                         prompt_ids, max_new_tokens));
    SEXTANT_RETURN_IF_ERROR(AddKept(request.capture(), model.layer_count(), &plan));
  }
  if (request.has_lens() || scores_prompt) {
    SEXTANT_RETURN_IF_ERROR(AddLens(request, scores_prompt, model, &plan));
  }
  SEXTANT_RETURN_IF_ERROR(SetPositions(request, scores_prompt, prompt_ids, max_new_tokens, &plan));
  SEXTANT_RETURN_IF_ERROR(ValidateCaptureSpec(plan.spec));
  plan.position_bytes = PositionBytes(plan.spec);
  plan.reading_bytes = ReadingBytesBound(plan.spec);
  const int64_t limit = served.engine.max_position_bytes();
  if (limit > 0 && plan.position_bytes > limit) return PositionTooBig(plan.position_bytes, limit);
  return std::optional<CapturePlan>(std::move(plan));
}

}  // namespace sextant
