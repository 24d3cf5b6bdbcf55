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

// One of several matrices that the same x meets.
struct Product {
    const void* weight;
    const float* bias;
    float* out;
    int64_t num_outputs;
};

constexpr int MAX_PRODUCTS = 3;
using Products = Product[MAX_PRODUCTS];

// function(product, i) for every i in [0, pieces(product)) of every product, as one job, so that
// threads wait for one another once. operations: of an output
template <class P, class F>
void run_all(Context& context, const Products& products, int64_t operations, const P& pieces,
             const F& function) {
    int64_t count = 0, num_outputs = 0;
    for (const Product& each : products) {
        count += pieces(each);
        num_outputs += each.num_outputs;
    }
    run(context, count, operations * num_outputs, [&](int64_t i) {
        const Product* product = products;
        while (i >= pieces(*product)) i -= pieces(*product++);
        function(*product, i);
    });
}

}  // namespace tiedlm
