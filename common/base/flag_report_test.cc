// Tests of what --print-config says.
#include "common/base/flag_report.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

const std::vector<FlagReport>& Flags() {
  static const std::vector<FlagReport> flags = {{"port", "7", "1", "environment SEXTANT_PORT"},
                                                {"api_token", "hush", "", "command line"},
                                                {"other_key", "", "", "default"},
                                                {"name", "two\nlines", "", "command line"}};
  return flags;
}

TEST(FlagReport, SecretsAreKnownByTheirLastWord) {
  for (const char* name : {"password", "api_token", "tls_key", "registry_secret", "credentials"}) {
    EXPECT_TRUE(IsSecretFlag(name)) << name;
  }
  for (const char* name : {"max_new_tokens", "token_file", "key_path", "keys", "monkey", ""}) {
    EXPECT_FALSE(IsSecretFlag(name)) << name;
  }
}

TEST(FlagReport, AFlagfileHasASourceForEachLineAndNoSecret) {
  EXPECT_EQ(AsFlagfile("title", Flags()),
            "# title\n"
            "# environment SEXTANT_PORT\n--port=7\n"
            "# command line\n# not written out: --api_token\n"
            "# default\n--other_key=\n"
            "# command line\n# not written out: --name\n");
}

TEST(FlagReport, JsonHasTheSameAndMasksSecrets) {
  const std::string text = AsJson("capture", "1.0", Flags());
  EXPECT_EQ(text.find("hush"), std::string::npos);
  const auto json = nlohmann::json::parse(text, nullptr, false);
  EXPECT_EQ(json["service"], "capture");
  EXPECT_EQ(json["flags"]["port"]["value"], "7");
  EXPECT_EQ(json["flags"]["port"]["source"], "environment SEXTANT_PORT");
  EXPECT_EQ(json["flags"]["port"]["default"], "1");
  EXPECT_EQ(json["flags"]["api_token"]["value"], "********");
  EXPECT_EQ(json["flags"]["other_key"]["value"], "");
  EXPECT_EQ(json["flags"]["name"]["value"], "two\nlines");
}

}  // namespace
}  // namespace sextant
