// The operators for aarch64 processors, all of which have NEON.
#include "jobs.hpp"

#ifdef TIEDLM_NEON
#include "attention.hpp"
#include "distribution.hpp"
#include "rowwise.hpp"
#include "vector_neon.hpp"

namespace tiedlm {

const Kernels neon = {
    "neon",      Neon::ROWS, Neon::OUTPUTS, linear<Neon>, attend<Neon>,
    gate<Neon>, cap<Neon>,  DISTRIBUTIONS<Neon>, ROWWISE<Neon>,
};

}  // namespace tiedlm
#endif
