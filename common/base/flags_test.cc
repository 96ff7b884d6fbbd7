// Tests of environment twins.
#include "common/base/flags.h"

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "common/base/error.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, test_number, 7, "A number for this test.");

namespace sextant {
namespace {

TEST(Flags, EnvironmentTwinsSetFlags) {
  absl::FlagSaver saver;
  ASSERT_TRUE(SetFlagsFromEnvironment({"SEXTANT_TEST_NUMBER=12", "SEXTANT_HOST=::1", "HOST=elsewhere"}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_test_number), 12);
  EXPECT_EQ(absl::GetFlag(FLAGS_host), "::1");
  EXPECT_EQ(absl::GetFlag(FLAGS_log_level), "info");
}

TEST(Flags, BadEnvironmentValueNamesTheVariable) {
  absl::FlagSaver saver;
  const absl::Status status = SetFlagsFromEnvironment({"SEXTANT_TEST_NUMBER=many"});
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
