// Sums over rows of logits or log-probabilities, ranks, and the most likely tokens.
//
// The order of tokens is by log-probability, as Python sees it, and then by id.
#include "selection.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace tiedlm {

namespace {

constexpr float NOTHING = -std::numeric_limits<float>::infinity();

void find_maxima(const Distributions& passes, const float* row, int64_t size) {
    std::vector<float>& maxima = scratch().maxima;
    maxima.resize(size_t((size + MAXIMA - 1) / MAXIMA));
    passes.maxima(row, size, maxima.data());
}

}  // namespace

Scratch& scratch() {
    static thread_local Scratch own;
    return own;
}

RowSums sum_up(const Summary* blocks, int64_t count) {
    float largest = NOTHING;
    for (int64_t b = 0; b < count; ++b) largest = std::max(largest, blocks[b].largest);
    double sum = 0.0, moment = 0.0;
    for (const Summary* block = blocks; block < blocks + count; ++block) {
        const double below = double(block->largest) - double(largest);
        const double share = std::exp(below);
        sum += block->sum * share;
        if (block->largest != NOTHING) moment += (block->moment + block->sum * below) * share;
    }
    return {largest, double(largest) + std::log(sum), std::log(sum) - moment / sum};
}

RowSums sums_of(const Distributions& passes, const float* row, int64_t size, bool has_moment) {
    std::vector<Summary>& blocks = scratch().blocks;
    blocks.clear();
    for (int64_t i = 0; i < size; i += BLOCK)
        blocks.push_back(passes.summarise(row + i, std::min(BLOCK, size - i), has_moment));
    return sum_up(blocks.data(), int64_t(blocks.size()));
}

LogSum split(double log_sum) {
    const float high = float(log_sum);
    return {high, float(log_sum - double(high))};
}

LogSum log_sum_of(const double* sums, int64_t r) {
    return sums == nullptr ? LogSum{0.0f, 0.0f} : split(sums[r]);
}

uint64_t key(float logprob, int32_t id) {
    uint32_t bits;
    std::memcpy(&bits, &logprob, 4);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return uint64_t(~bits) << 32 | uint32_t(id);
}

void keep_first(std::vector<uint64_t>& keys, int64_t count) {
    const auto end = keys.begin() + count;
    if (end != keys.end()) std::nth_element(keys.begin(), end, keys.end());
    std::sort(keys.begin(), end);
    keys.erase(end, keys.end());
}

float step_below(float x, float distance) {
    return x - 4e-7f * (std::fabs(x) + std::fmax(16.0f, distance));
}

float floor_of(std::vector<float>& maxima, int64_t count) {
    if (count > int64_t(maxima.size())) return NOTHING;
    const auto at = maxima.begin() + (count - 1);
    std::nth_element(maxima.begin(), at, maxima.end(), [](float a, float b) { return a > b; });
    return *at;
}

void find(const Distributions& passes, const float* row, int64_t size, float floor) {
    Scratch& own = scratch();
    if (own.found.size() < size_t(size)) own.found.resize(size_t(size));
    const int64_t count = passes.at_least(row, size, floor, own.found.data());
    own.ids.assign(own.found.begin(), own.found.begin() + count);
}

// Exponentials are needed only where several logits are so near the largest that it may be theirs
// too, and only if the log-sum is not known.
int64_t most_likely(const Distributions& passes, const float* logits, int64_t size,
                    double log_sum) {
    const float largest = passes.largest(logits, size);
    find(passes, logits, size, step_below(largest, 0.0f));
    const std::vector<int32_t>& near = scratch().ids;
    if (near.size() == 1) return near.front();
    const bool is_known = !std::isnan(log_sum);
    const LogSum sum =
        split(is_known ? log_sum : sums_of(passes, logits, size, false).log_sum);
    const float top = logprob(sum, largest);
    for (const int32_t id : near)
        if (logprob(sum, logits[id]) == top) return id;
    return 0;  // NaN
}

void top(const Distributions& passes, const float* row, int64_t size, LogSum sum, int64_t count,
         int64_t* ids) {
    Scratch& own = scratch();
    find_maxima(passes, row, size);
    const float floor = floor_of(own.maxima, count);
    find(passes, row, size, step_below(floor, std::fabs(floor - sum.high)));
    own.keys.clear();
    for (const int32_t id : own.ids) own.keys.push_back(key(logprob(sum, row[id]), id));
    keep_first(own.keys, count);
    for (int64_t i = 0; i < count; ++i) ids[i] = id_of(own.keys[size_t(i)]);
}

}  // namespace tiedlm

using namespace tiedlm;

extern "C" {

// logits (R,V) -> sums (R,), and log-softmax (R,V) where it is not null
void tiedlm_log_sum_exp(void* handle, const float* logits, double* sums, float* logprobs,
                        int64_t num_rows, int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    const Distributions& passes = context.kernels.distributions;
    run(context, num_rows, OPERATIONS_PER_EXP * num_rows * vocab_size, [&](int64_t r) {
        const float* row = logits + r * vocab_size;
        sums[r] = sums_of(passes, row, vocab_size, false).log_sum;
        if (logprobs != nullptr)
            passes.log_softmax(row, vocab_size, split(sums[r]), logprobs + r * vocab_size);
    });
}

// logits (R,V) -> out (R,), of their softmax
void tiedlm_entropy(void* handle, const float* logits, double* out, int64_t num_rows,
                    int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    run(context, num_rows, OPERATIONS_PER_EXP * num_rows * vocab_size, [&](int64_t r) {
        const float* row = logits + r * vocab_size;
        out[r] = sums_of(context.kernels.distributions, row, vocab_size, true).entropy;
    });
}

// logits (R,V) and their log-sums (R,); log-probabilities where those are null. Token i is of row
// rows[i] -> ranks (N,), the most likely token's being 1
void tiedlm_ranks(void* handle, const float* logits, const double* sums, const int64_t* rows,
                  const int64_t* tokens, int64_t* ranks, int64_t count, int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    run(context, count, count * vocab_size, [&](int64_t i) {
        ranks[i] = 1 + context.kernels.distributions.num_before(
                           logits + rows[i] * vocab_size, vocab_size, log_sum_of(sums, rows[i]),
                           tokens[i]);
    });
}

// As above -> ids (R,count)
void tiedlm_top(void* handle, const float* logits, const double* sums, int64_t* ids,
                int64_t num_rows, int64_t vocab_size, int64_t count) {
    Context& context = *static_cast<Context*>(handle);
    run(context, num_rows, 4 * num_rows * vocab_size, [&](int64_t r) {
        top(context.kernels.distributions, logits + r * vocab_size, vocab_size,
            log_sum_of(sums, r), count, ids + r * count);
    });
}

}  // extern "C"
