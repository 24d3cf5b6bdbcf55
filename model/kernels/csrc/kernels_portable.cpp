// The operators for any processor.
#include "attention.hpp"
#include "distribution.hpp"
#include "rowwise.hpp"
#include "vector_portable.hpp"

namespace tiedlm {

const Kernels portable = {
    "portable",      Portable::ROWS, Portable::OUTPUTS, linear<Portable>, attend<Portable>,
    gate<Portable>, cap<Portable>,  DISTRIBUTIONS<Portable>, ROWWISE<Portable>,
};

}  // namespace tiedlm
