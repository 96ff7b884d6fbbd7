// The version of this build, as the build system states it.
#include "common/base/version.h"

namespace sextant {

const char* Version() { return SEXTANT_VERSION; }

}  // namespace sextant
