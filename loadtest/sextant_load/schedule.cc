// Draws the schedule and writes its requests.
#include "loadtest/sextant_load/schedule.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"
#include "loadtest/sextant_load/random.h"

namespace sextant::load {
namespace {

constexpr const char* kWords[] = {
    "the",    "old",   "navigator", "looked", "at",   "stars",  "and",    "measured", "angle",
    "of",     "ship",  "moved",     "slowly", "over", "dark",   "water",  "while",    "wind",
    "turned", "north", "chart",     "showed", "no",   "island", "where",  "birds",    "flew",
    "every",  "light", "was",       "far",    "away", "they",   "waited", "until",    "morning"};

// A tokenizer may need this many tokens for one of kWords and the space before it.
constexpr int32_t kMaxTokensPerWord = 12;
// Of a chat template around one message, and of tokens the tokenizer adds of itself.
constexpr int32_t kTemplateTokens = 160;

absl::Status Wrong(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

size_t DrawKind(const Scenario& scenario, Random& random) {
  double total = 0;
  for (const RequestKind& kind : scenario.requests) total += kind.weight;
  double left = random.Unit() * total;
  for (size_t i = 0; i + 1 < scenario.requests.size(); ++i) {
    left -= scenario.requests[i].weight;
    if (left <= 0) return i;
  }
  return scenario.requests.size() - 1;
}

std::vector<int32_t> DrawVectors(const Scenario& scenario, const RequestKind& kind, Random& random) {
  std::vector<int32_t> vectors;
  const int32_t count = random.Within(kind.steer);
  while (static_cast<int32_t>(vectors.size()) < count) {
    const auto number = static_cast<int32_t>(random.Below(scenario.vectors));
    if (std::find(vectors.begin(), vectors.end(), number) == vectors.end()) vectors.push_back(number);
  }
  return vectors;
}

absl::Status CheckLayers(const RequestKind& kind, const std::vector<int32_t>& layers, int layer_count) {
  if (layers.empty() || layers.back() < layer_count) return absl::OkStatus();
  return Wrong("LAYER_NOT_OF_MODEL", absl::StrCat("[request ", kind.name, "] names layer ", layers.back(),
                                                  "; the model has layers 0 to ", layer_count - 1));
}

// Of the positions a request may need at most. Text is a guess on the safe side of common vocabularies only
// for words; a prompt that is longer after all is answered INVALID_ARGUMENT and breaks the ledger.
int64_t MostPositions(const RequestKind& kind) {
  int64_t prompt = kind.prompt_size.most;
  if (kind.prompt != PromptKind::kIds) prompt = prompt * kMaxTokensPerWord;
  if (kind.prompt == PromptKind::kChat) prompt += kTemplateTokens;
  return prompt + kind.new_tokens.most;
}

std::string DrawText(int32_t words, Random& random) {
  std::string text;
  for (int32_t i = 0; i < words; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : " ", kWords[random.Below(std::size(kWords))]);
  }
  return text;
}

int32_t RowCount(const std::vector<v1::Site>& sites, const std::vector<int32_t>& layers,
                 const v1::Model& model) {
  const size_t layer_count = layers.empty() ? static_cast<size_t>(model.layer_count()) : layers.size();
  return static_cast<int32_t>(sites.size() * layer_count);
}

}  // namespace

std::vector<PlannedRequest> MakeSchedule(const Scenario& scenario) {
  Random random(scenario.seed);
  std::vector<PlannedRequest> schedule;
  const double end = absl::ToDoubleSeconds(scenario.duration);
  double at = scenario.arrivals == Arrivals::kFixed ? 0 : random.Gap(scenario.rate);
  while (at < end) {
    PlannedRequest& planned = schedule.emplace_back();
    planned.index = static_cast<int64_t>(schedule.size()) - 1;
    planned.at = absl::Seconds(at);
    planned.kind = DrawKind(scenario, random);
    const RequestKind& kind = scenario.requests[planned.kind];
    planned.prompt_size = random.Within(kind.prompt_size);
    planned.new_tokens = random.Within(kind.new_tokens);
    planned.vectors = DrawVectors(scenario, kind, random);
    planned.seed = random.Next();
    at = scenario.arrivals == Arrivals::kFixed ? static_cast<double>(schedule.size()) / scenario.rate
                                               : at + random.Gap(scenario.rate);
  }
  return schedule;
}

absl::Status CheckAgainstModel(const Scenario& scenario, const v1::Model& model) {
  for (const RequestKind& kind : scenario.requests) {
    if (MostPositions(kind) > model.max_position_count()) {
      return Wrong("PROMPT_TOO_LONG_FOR_MODEL",
                   absl::StrCat("[request ", kind.name, "] may need ", MostPositions(kind),
                                " positions; this model admits ", model.max_position_count()));
    }
    SEXTANT_RETURN_IF_ERROR(CheckLayers(kind, kind.lens_layers, model.layer_count()));
    SEXTANT_RETURN_IF_ERROR(CheckLayers(kind, kind.capture_layers, model.layer_count()));
  }
  return absl::OkStatus();
}

v1::GenerateRequest MakeRequest(const Scenario& scenario, const PlannedRequest& planned,
                                const v1::Model& model) {
  const RequestKind& kind = scenario.requests[planned.kind];
  Random random(planned.seed);
  v1::GenerateRequest request;
  if (kind.prompt == PromptKind::kIds) {
    for (int32_t i = 0; i < planned.prompt_size; ++i) {
      request.mutable_token_ids()->add_ids(static_cast<int32_t>(random.Below(model.vocab_size())));
    }
  } else if (kind.prompt == PromptKind::kText) {
    request.set_text(DrawText(planned.prompt_size, random));
  } else {
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(DrawText(planned.prompt_size, random));
  }
  request.set_max_new_tokens(planned.new_tokens);
  request.set_ignore_eos(true);
  request.mutable_sampling()->set_temperature(static_cast<float>(kind.temperature));
  request.mutable_sampling()->set_seed(planned.seed);
  if (!kind.lens_sites.empty()) {
    v1::LensSettings& lens = *request.mutable_lens();
    for (const v1::Site site : kind.lens_sites) lens.add_sites(site);
    lens.mutable_layers()->Assign(kind.lens_layers.begin(), kind.lens_layers.end());
    lens.set_top_k(kind.top_k);
  }
  if (!kind.capture_sites.empty()) {
    v1::CaptureSettings& capture = *request.mutable_capture();
    for (const v1::Site site : kind.capture_sites) capture.add_sites(site);
    capture.mutable_layers()->Assign(kind.capture_layers.begin(), kind.capture_layers.end());
    capture.set_label("sextant_load");
  }
  for (const int32_t number : planned.vectors) {
    request.add_interventions()->set_vector(VectorName(number));
  }
  return request;
}

v1::ReadActivationsRequest MakeReadRequest(const Scenario& scenario, const PlannedRequest& planned,
                                           const std::string& capture, const v1::Model& model) {
  const RequestKind& kind = scenario.requests[planned.kind];
  v1::ReadActivationsRequest request;
  request.set_name(capture);
  for (const v1::Site site : kind.capture_sites) request.add_sites(site);
  request.mutable_layers()->Assign(kind.capture_layers.begin(), kind.capture_layers.end());
  for (int layer = 0; kind.capture_layers.empty() && layer < model.layer_count(); ++layer) {
    request.add_layers(layer);
  }
  return request;
}

std::string VectorName(int32_t number) { return absl::StrCat("sextant-load-", number); }

int32_t LensRowCount(const RequestKind& kind, const v1::Model& model) {
  return RowCount(kind.lens_sites, kind.lens_layers, model);
}

int32_t CaptureRowCount(const RequestKind& kind, const v1::Model& model) {
  return RowCount(kind.capture_sites, kind.capture_layers, model);
}

}  // namespace sextant::load
