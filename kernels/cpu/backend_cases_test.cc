// The CPU backend's cases of the contract, and its name.
#include "gtest/gtest.h"
#include "kernels/backend_contract.h"
#include "kernels/cpu/backend.h"

namespace sextant {

std::vector<BackendCase> BackendCases() {
  std::vector<BackendCase> cases;
  for (const CpuIsa isa : {CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512Bf16, CpuIsa::kAmxBf16}) {
    for (const bool late : {false, true}) {
      cases.push_back({.name = std::string(CpuIsaName(isa)) + (late ? "_late" : ""),
                       .make = [isa, late] { return MakeCpuBackend({.isa = isa, .late = late}); },
                       .late = late});
    }
  }
  return cases;
}

namespace {

TEST(CpuBackendTest, NamesItsInstructionSet) {
  auto backend = MakeCpuBackend({.isa = CpuIsa::kReference});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ((*backend)->Name(), "cpu (reference)");
}

}  // namespace
}  // namespace sextant
