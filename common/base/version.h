// The version of this build.
#pragma once

namespace sextant {

// "0.1.0".
const char* Version();

}  // namespace sextant
