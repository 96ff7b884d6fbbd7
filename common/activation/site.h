// Names of the places in a transformer block where rows are taken.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

using Site = sextant::v1::Site;

// All sites in the order in which the forward pass reaches them.
inline constexpr Site kSites[] = {
    sextant::v1::SITE_RESID_PRE,  sextant::v1::SITE_ATTN_IN, sextant::v1::SITE_ATTN_OUT,
    sextant::v1::SITE_RESID_MID,  sextant::v1::SITE_MLP_IN,  sextant::v1::SITE_MLP_OUT,
    sextant::v1::SITE_RESID_POST,
};

// "resid_pre", ...; "unspecified" for anything that is not a site.
absl::string_view SiteName(Site site);

// The site called `name` ("resid_post" or TransformerLens's "hook_resid_post"), if there is one.
std::optional<Site> SiteFromName(absl::string_view name);

// True for outputs of a norm, which the lens refuses: they are normed already.
inline bool IsNormed(Site site) {
  return site == sextant::v1::SITE_ATTN_IN || site == sextant::v1::SITE_MLP_IN;
}

// True for what a block adds to the residual stream, where NORMALIZATION_RESIDUAL differs from OWN.
inline bool IsContribution(Site site) {
  return site == sextant::v1::SITE_ATTN_OUT || site == sextant::v1::SITE_MLP_OUT;
}

}  // namespace sextant
