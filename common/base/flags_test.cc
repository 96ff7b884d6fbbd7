// Tests of environment twins.
#include "common/base/flags.h"

#include <unistd.h>

#include <fstream>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "common/base/error.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, test_number, 7, "A number for this test.");
ABSL_FLAG(int, test_rank, -1, "Internal: of this test.");

namespace sextant {
namespace {

TEST(Flags, EnvironmentTwinsSetFlags) {
  absl::FlagSaver saver;
  const auto set = SetFlagsFromEnvironment({"SEXTANT_TEST_NUMBER=12", "SEXTANT_HOST=::1", "HOST=elsewhere"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(*set, (std::set<std::string>{"host", "test_number"}));
  EXPECT_EQ(absl::GetFlag(FLAGS_test_number), 12);
  EXPECT_EQ(absl::GetFlag(FLAGS_host), "::1");
  EXPECT_EQ(absl::GetFlag(FLAGS_log_level), "info");
}

TEST(Flags, InternalFlagsHaveNoTwin) {
  absl::FlagSaver saver;
  ASSERT_TRUE(SetFlagsFromEnvironment({"SEXTANT_TEST_RANK=3"}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_test_rank), -1);
}

TEST(Flags, DashesInNamesAreUnderscoresAndValuesStay) {
  EXPECT_EQ(SpellFlags({"p", "--test-number=1-2", "--log-level", "a-b", "--print-config", "--no-such-flag"}),
            (std::vector<std::string>{"p", "--test_number=1-2", "--log_level", "a-b", "--print_config=flags",
                                      "--no-such-flag"}));
  EXPECT_EQ(SpellFlags({"p", "--print-config=json", "--", "--log-level"}),
            (std::vector<std::string>{"p", "--print_config=json", "--", "--log-level"}));
}

// The whole of it ends the process, so each runs in a child; what it prints is matched.
void PrintInChild(std::vector<std::string> arguments) {
  dup2(STDERR_FILENO, STDOUT_FILENO);
  setenv("SEXTANT_TEST_NUMBER", "12", 1);
  arguments.insert(arguments.begin(), "program");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  ParseFlags(static_cast<int>(arguments.size()), pointers.data(), "test", "Tests flags.").IgnoreError();
}

TEST(FlagsDeathTest, PrintConfigSaysWhereValuesAreFrom) {
  const std::string file = testing::TempDir() + "/flagfile";
  std::ofstream(file) << "--host=::1\n";
  EXPECT_EXIT(PrintInChild({"--print-config", "--log-level=error", "--flagfile=" + file}),
              testing::ExitedWithCode(0),
              "# flagfile\n--host=::1\n(.|\n)*# default\n--log_format=text\n"
              "# command line\n--log_level=error\n# environment SEXTANT_TEST_NUMBER\n--test_number=12\n$");
}

TEST(Flags, BadEnvironmentValueNamesTheVariable) {
  absl::FlagSaver saver;
  const absl::Status status = SetFlagsFromEnvironment({"SEXTANT_TEST_NUMBER=many"}).status();
  EXPECT_EQ(ErrorReason(status), "FLAG_INVALID");
  EXPECT_NE(std::string(status.message()).find("SEXTANT_TEST_NUMBER"), std::string::npos) << status;
}

TEST(Flags, CommandLineWinsAndStrayArgumentsAreRefused) {
  absl::FlagSaver saver;
  ASSERT_EQ(setenv("SEXTANT_TEST_NUMBER", "1", 1), 0);
  std::string program = "program", flag = "--test_number=2", stray = "stray";
  char* arguments[] = {program.data(), flag.data(), stray.data(), nullptr};
  const absl::Status status = ParseFlags(3, arguments, "test", "Tests flags.");
  unsetenv("SEXTANT_TEST_NUMBER");
  EXPECT_EQ(absl::GetFlag(FLAGS_test_number), 2);
  EXPECT_EQ(ErrorReason(status), "FLAG_INVALID");
  EXPECT_NE(std::string(status.message()).find("'stray'"), std::string::npos) << status;
}

}  // namespace
}  // namespace sextant
