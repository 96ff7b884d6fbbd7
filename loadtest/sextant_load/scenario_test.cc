// Scenario files: what is read, and that each mistake is refused with its reason and line.
#include "loadtest/sextant_load/scenario.h"

#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "gtest/gtest.h"

namespace sextant::load {
namespace {

constexpr char kLoad[] = "[load]\nrate = 4\nduration = 10s\n";
constexpr char kRequest[] = "[request a]\nprompt = ids 4\nnew_tokens = 2\n";

TEST(Scenario, ReadsEveryKey) {
  const auto scenario = ParseScenario(
      "# first\n\n[load]\narrivals = fixed\nrate = 2.5\nduration = 1.5m\nwarmup = 250ms\ntimeout = 5s\n"
      "retries = 3\nseed = 42\nvectors = 4\nfirst_token_objective = 2s\ninter_token_objective = 100ms\n"
      "[request all]  # with a comment\nweight = 0.5\nprompt = chat 3..9\nnew_tokens = 7\nlens = resid_post, "
      "mlp_out\n"
      "lens_layers = 0, 2\ntop_k = 8\ncapture = attn_in\ncapture_layers = 1\nsteer = 1..4\ntemperature = "
      "0.7\n");
  ASSERT_TRUE(scenario.ok()) << scenario.status();
  EXPECT_EQ(scenario->arrivals, Arrivals::kFixed);
  EXPECT_EQ(scenario->rate, 2.5);
  EXPECT_EQ(scenario->duration, absl::Seconds(90));
  EXPECT_EQ(scenario->warmup, absl::Milliseconds(250));
  EXPECT_EQ(scenario->retries, 3);
  EXPECT_EQ(scenario->seed, 42u);
  EXPECT_EQ(scenario->inter_token_objective, absl::Milliseconds(100));
  const RequestKind& kind = scenario->requests.at(0);
  EXPECT_EQ(kind.name, "all");
  EXPECT_EQ(kind.prompt, PromptKind::kChat);
  EXPECT_EQ(kind.prompt_size.most, 9);
  EXPECT_EQ(kind.new_tokens.least, 7);
  EXPECT_EQ(kind.lens_sites, (std::vector<v1::Site>{v1::SITE_RESID_POST, v1::SITE_MLP_OUT}));
  EXPECT_EQ(kind.lens_layers, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(kind.capture_layers, (std::vector<int32_t>{1}));
  EXPECT_EQ(kind.steer.most, 4);
  EXPECT_EQ(kind.temperature, 0.7);
}

struct Mistake {
  std::string text;
  const char* reason;
  const char* where;  // what the message begins with
};

class ScenarioMistakes : public testing::TestWithParam<Mistake> {};

TEST_P(ScenarioMistakes, AreRefused) {
  const auto scenario = ParseScenario(GetParam().text);
  ASSERT_FALSE(scenario.ok());
  EXPECT_EQ(scenario.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(scenario.status()), GetParam().reason) << scenario.status();
  EXPECT_TRUE(absl::StartsWith(scenario.status().message(), GetParam().where)) << scenario.status();
}

std::string Load(const char* line) { return absl::StrCat(kLoad, line, "\n", kRequest); }
std::string Request(const char* line) { return absl::StrCat(kLoad, kRequest, line, "\n"); }

INSTANTIATE_TEST_SUITE_P(
    All, ScenarioMistakes,
    testing::Values(
        Mistake{"rate = 4", "KEY_UNKNOWN", "line 1: "}, Mistake{"[load", "LINE_MALFORMED", "line 1: "},
        Mistake{"[loads]", "SECTION_UNKNOWN", "line 1: "},
        Mistake{"[request]", "SECTION_UNKNOWN", "line 1: "},
        Mistake{"[request a b]", "SECTION_UNKNOWN", "line 1: "},
        Mistake{"\n[load]\n[load]", "SECTION_REPEATED", "line 3: "},
        Mistake{"word", "LINE_MALFORMED", "line 1: "},
        Mistake{std::string(1001, 'x'), "LINE_MALFORMED", "line 1: "},
        Mistake{Load("speed = 3"), "KEY_UNKNOWN", "line 4: "},
        Mistake{Load("rate = 5"), "KEY_REPEATED", "line 4: "},
        Mistake{Load("seed = -1"), "VALUE_INVALID", "line 4: "},
        Mistake{Load("seed = 1x"), "VALUE_INVALID", "line 4: "},
        Mistake{Load("warmup = 5"), "VALUE_INVALID", "line 4: "},
        Mistake{Load("warmup = 5 s"), "VALUE_INVALID", "line 4: "},
        Mistake{Load("timeout = 25h"), "VALUE_INVALID", "line 4: "},
        Mistake{Load("arrivals = bursts"), "VALUE_INVALID", "line 4: "},
        Mistake{Request("weight = nan"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("weight = 1e3"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("weight = 0"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("lens = logits"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("lens = resid_post,resid_post"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("lens_layers = 2,1"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("lens_layers ="), "VALUE_INVALID", "line 7: "},
        Mistake{Request("steer = 3..1"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("top_k = 101"), "VALUE_INVALID", "line 7: "},
        Mistake{Request("steer = 1"), "NOT_ENOUGH_VECTORS", "[request a]"},
        Mistake{absl::StrCat(kLoad, "[request a]\nprompt = 4\n"), "VALUE_INVALID", "line 5: "},
        Mistake{absl::StrCat(kLoad, "[request a]\nprompt = ids 0\n"), "VALUE_INVALID", "line 5: "},
        Mistake{absl::StrCat(kLoad, "[request a]\nprompt = ids 4\n"), "KEY_MISSING", "[request a]"},
        Mistake{absl::StrCat(kLoad, "[request a]\nnew_tokens = 4\n"), "KEY_MISSING", "[request a]"},
        Mistake{kLoad, "NO_REQUESTS", ""}, Mistake{kRequest, "KEY_MISSING", "[load] needs rate"},
        Mistake{"", "KEY_MISSING", ""},
        Mistake{absl::StrCat("[load]\nrate = 4\n", kRequest), "KEY_MISSING", "[load] needs duration"},
        Mistake{Load("warmup = 10s"), "WARMUP_TOO_LONG", ""},
        Mistake{absl::StrCat("[load]\nrate = 100000\nduration = 1h\n", kRequest), "TOO_MANY_REQUESTS", ""}));

TEST(Scenario, TheShippedOnesParse) {
  const std::string folder = absl::StrCat(std::getenv("SEXTANT_SOURCE_DIR"), "/loadtest/scenarios/");
  for (const char* name :
       {"chat", "long_prompts", "capture_heavy", "many_vectors", "mixed", "saturation", "tiny"}) {
    std::stringstream text;
    text << std::ifstream(absl::StrCat(folder, name, ".scenario")).rdbuf();
    const auto scenario = ParseScenario(text.str());
    EXPECT_TRUE(scenario.ok()) << name << ": " << scenario.status();
  }
}

}  // namespace
}  // namespace sextant::load
