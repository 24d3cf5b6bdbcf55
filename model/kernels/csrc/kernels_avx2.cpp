// The operators for x86-64 processors with AVX2 and FMA.
//
// The pragma stands before every function of this file and stays to its end, where templates are
// instantiated. Nothing of the standard library may be instantiated under it: the linker could hand
// that copy to the other files.
#include "jobs.hpp"

#ifdef TIEDLM_X86
#pragma GCC target("avx2,fma,popcnt")
#include "attention.hpp"
#include "distribution.hpp"
#include "rowwise.hpp"
#include "vector_avx2.hpp"

namespace tiedlm {

const Kernels avx2 = {
    "avx2",      Avx2::ROWS, Avx2::OUTPUTS, linear<Avx2>, attend<Avx2>,
    gate<Avx2>, cap<Avx2>,  DISTRIBUTIONS<Avx2>, ROWWISE<Avx2>,
};

}  // namespace tiedlm
#endif
