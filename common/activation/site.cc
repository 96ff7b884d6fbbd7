// Names of the places in a transformer block where rows are taken.
#include "common/activation/site.h"

#include "absl/strings/strip.h"

namespace sextant {

absl::string_view SiteName(Site site) {
  switch (site) {
    case sextant::v1::SITE_RESID_PRE:
      return "resid_pre";
    case sextant::v1::SITE_ATTN_IN:
      return "attn_in";
    case sextant::v1::SITE_ATTN_OUT:
      return "attn_out";
    case sextant::v1::SITE_RESID_MID:
      return "resid_mid";
    case sextant::v1::SITE_MLP_IN:
      return "mlp_in";
    case sextant::v1::SITE_MLP_OUT:
      return "mlp_out";
    case sextant::v1::SITE_RESID_POST:
      return "resid_post";
    default:
      return "unspecified";
  }
}

std::optional<Site> SiteFromName(absl::string_view name) {
  absl::ConsumePrefix(&name, "hook_");
  for (const Site site : kSites) {
    if (SiteName(site) == name) return site;
  }
  return std::nullopt;
}

}  // namespace sextant
