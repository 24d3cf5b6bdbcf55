// The operators for x86-64 processors with AVX-512F.
//
// The pragma stands before every function of this file and stays to its end, where templates are
// instantiated. Nothing of the standard library may be instantiated under it: the linker could hand
// that copy to the other files.
#include "jobs.hpp"

#ifdef TIEDLM_X86
#pragma GCC target("avx512f,avx2,fma,popcnt")
#include "attention.hpp"
#include "distribution.hpp"
#include "rowwise.hpp"
#include "vector_avx512.hpp"

namespace tiedlm {

const Kernels avx512 = {
    "avx512",      Avx512::ROWS, Avx512::OUTPUTS, linear<Avx512>, attend<Avx512>,
    gate<Avx512>, cap<Avx512>,  DISTRIBUTIONS<Avx512>, ROWWISE<Avx512>,
};

}  // namespace tiedlm
#endif
