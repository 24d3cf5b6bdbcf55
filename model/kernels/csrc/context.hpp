// What a handle of the C interface points to, and how a job is shared among its threads.
#pragma once
#include "jobs.hpp"
#include "pool.hpp"
#include "quantised.hpp"

namespace tiedlm {

constexpr int64_t ALONE_OPERATIONS = 200000;  // less is done sooner than another thread wakes up
constexpr int64_t OPERATIONS_PER_EXP = 24;

struct Context {
    const Kernels& kernels;
    const Quantised& quantised;
    Pool pool;
};

// function(i) for every i in [0, count)
template <class F>
void run(Context& context, int64_t count, int64_t operations, const F& function) {
    if (operations < ALONE_OPERATIONS) {
        for (int64_t i = 0; i < count; ++i) function(i);
        return;
    }
    context.pool.run(
        count, [](const void* f, int64_t i) { (*static_cast<const F*>(f))(i); }, &function);
}

}  // namespace tiedlm
