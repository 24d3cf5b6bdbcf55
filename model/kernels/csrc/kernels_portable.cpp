// The operators for any processor.
#include "attention.hpp"
#include "vector_portable.hpp"

namespace tiedlm {

const Kernels portable = {
    "portable",           Portable::ROWS,   Portable::OUTPUTS, linear<Portable>, attend<Portable>,
    log_sum_exp<Portable>, entropy<Portable>, gate<Portable>, cap<Portable>,
};

}  // namespace tiedlm
