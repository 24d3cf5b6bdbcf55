// From rows of logits to tokens: what of a distribution is kept, and what is drawn from it.
//
// A row is one thread's from beginning to end. Its weights are e^(x - largest); the order of tokens
// is by log-probability, as Python sees it, and then by id.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "context.hpp"

using namespace tiedlm;

namespace {

// As tiedlm_choose gets it; all float64, so that Python hands over one array.
struct Draw {
    double temperature, top_k, top_p, min_p, uniform;
};

// A thread's, kept from call to call: the memory is then not asked for again.
struct Scratch {
    std::vector<float> scaled, weights, maxima;
    std::vector<double> sums;
    std::vector<int32_t> ids;
    std::vector<uint64_t> keys;
};

Scratch& scratch() {
    static thread_local Scratch own;
    return own;
}

int64_t num_blocks(int64_t size) { return (size + BLOCK - 1) / BLOCK; }

double total(const std::vector<double>& sums) {
    double all = 0.0;
    for (const double sum : sums) all += sum;
    return all;
}

LogSum split(double log_sum) {
    const float high = float(log_sum);
    return {high, float(log_sum - double(high))};
}

double log_sum_exp(const Distributions& passes, const float* row, int64_t size) {
    std::vector<double>& sums = scratch().sums;
    sums.resize(size_t(num_blocks(size)));
    const float shift = passes.largest(row, size);
    passes.exponentials(row, size, shift, nullptr, sums.data());
    return double(shift) + std::log(total(sums));
}

// Ascending keys are descending log-probabilities, and ascending ids among equal ones.
uint64_t key(float logprob, int32_t id) {
    uint32_t bits;
    std::memcpy(&bits, &logprob, 4);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return uint64_t(~bits) << 32 | uint32_t(id);
}

int32_t id_of(uint64_t key) { return int32_t(key & 0xFFFFFFFFu); }

// A bound that at least `count` elements reach, and not many more: one of the largest of each 64.
float floor_of(const Distributions& passes, const float* row, int64_t size, int64_t count) {
    std::vector<float>& maxima = scratch().maxima;
    maxima.resize(size_t((size + MAXIMA - 1) / MAXIMA));
    if (count > int64_t(maxima.size())) return -std::numeric_limits<float>::infinity();
    passes.maxima(row, size, maxima.data());
    const auto at = maxima.begin() + (count - 1);
    std::nth_element(maxima.begin(), at, maxima.end(), [](float a, float b) { return a > b; });
    return *at;
}

void find(const Distributions& passes, const float* row, int64_t size, float floor) {
    std::vector<int32_t>& ids = scratch().ids;
    ids.resize(size_t(size));
    ids.resize(size_t(passes.at_least(row, size, floor, ids.data())));
}

double mass(const float* weights, const uint64_t* first, const uint64_t* last) {
    double sum = 0.0;
    for (; first != last; ++first) sum += double(weights[id_of(*first)]);
    return sum;
}

// One row being drawn from: its scaled logits, their weights and log-sum.
struct Row {
    const Distributions& passes;
    const float* scaled;
    int64_t size;
    float largest;
    double sum;
    LogSum log_sum;

    float logprob(float x) const { return (x - log_sum.high) - log_sum.low; }
    const float* weights() const { return scratch().weights.data(); }
};

// Leaves the fewest of the first keys in order whose mass reaches `target`. Buckets of an eighth of
// a nat say which keys are surely in or out; those at the border are halved, not sorted.
void keep_nucleus(std::vector<uint64_t>& keys, const Row& row, double target) {
    constexpr int BUCKETS = 512;
    const float top = row.logprob(row.largest);
    const auto bucket = [&](uint64_t each) {
        const float below = (top - row.logprob(row.scaled[id_of(each)])) * 8.0f;
        return below < float(BUCKETS - 1) ? int(below) : BUCKETS - 1;
    };
    double masses[BUCKETS] = {};
    for (const uint64_t each : keys) masses[bucket(each)] += double(row.weights()[id_of(each)]);
    int border = 0;
    double below = 0.0;  // the mass of what is surely in
    while (border < BUCKETS - 1 && below + masses[border] < target) below += masses[border++];
    const auto sure = std::partition(keys.begin(), keys.end(),
                                     [&](uint64_t each) { return bucket(each) < border; });
    keys.erase(std::partition(sure, keys.end(),
                              [&](uint64_t each) { return bucket(each) == border; }),
               keys.end());
    uint64_t* const begin = keys.data();
    size_t low = size_t(sure - keys.begin()), high = keys.size();  // the answer is in (low, high]
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        std::nth_element(begin + low, begin + middle, begin + high);
        const double more = mass(row.weights(), begin + low, begin + middle);
        if (below + more >= target) {
            high = middle;
        } else {
            below += more;
            low = middle;
        }
    }
    keys.resize(high);
}

Row prepare(const Distributions& passes, const float* logits, int64_t size, float temperature) {
    Scratch& own = scratch();
    if (temperature != 0.0f && temperature != 1.0f) {
        own.scaled.resize(size_t(size));
        passes.divide(logits, size, temperature, own.scaled.data());
        logits = own.scaled.data();
    }
    own.weights.resize(size_t(size));
    own.sums.resize(size_t(num_blocks(size)));
    const float largest = passes.largest(logits, size);
    passes.exponentials(logits, size, largest, own.weights.data(), own.sums.data());
    const double sum = total(own.sums);
    return {passes, logits, size, largest, sum, split(double(largest) + std::log(sum))};
}

// The lowest id of the largest log-probability.
int64_t most_likely(const Row& row) {
    const float top = row.logprob(row.largest);
    for (int64_t i = 0;; ++i)
        if (row.logprob(row.scaled[i]) == top) return i;
}

// Ids that may be among the kept, as keys: all of the kept, and not many more.
void find_candidates(const Row& row, const Draw& draw) {
    Scratch& own = scratch();
    if (draw.top_k > 0 && draw.top_k < double(row.size)) {
        float floor = floor_of(row.passes, row.scaled, row.size, int64_t(draw.top_k));
        // A smaller logit may have the same log-probability: step below it by a few roundings.
        floor -= 4e-7f * (std::fabs(floor) + std::fabs(row.log_sum.high));
        find(row.passes, row.scaled, row.size, floor);
    } else {
        // What is lighter than this weighs less than 1 - top_p all together.
        const double light = 0.5 * (1.0 - draw.top_p) * row.sum / double(row.size);
        find(row.passes, row.weights(), row.size, float(std::max(light, draw.min_p) * (1 - 1e-6)));
    }
    own.keys.clear();
    for (const int32_t id : own.ids) own.keys.push_back(key(row.logprob(row.scaled[id]), id));
}

// Leaves the ids of the kept, ascending: top-k, then top-p of those, then min-p of those.
void truncate(const Row& row, const Draw& draw) {
    Scratch& own = scratch();
    find_candidates(row, draw);
    double sum = row.sum;
    if (draw.top_k > 0 && draw.top_k < double(row.size)) {
        const auto end = own.keys.begin() + int64_t(draw.top_k);
        std::nth_element(own.keys.begin(), end - 1, own.keys.end());
        own.keys.erase(end, own.keys.end());
        sum = mass(row.weights(), own.keys.data(), own.keys.data() + own.keys.size());
    }
    if (draw.top_p < 1.0) keep_nucleus(own.keys, row, draw.top_p * sum);
    own.ids.clear();
    for (const uint64_t each : own.keys)
        if (double(row.weights()[id_of(each)]) >= draw.min_p) own.ids.push_back(id_of(each));
    std::sort(own.ids.begin(), own.ids.end());
}

// Where `at` falls in the cumulative sum over all ids: the block first, then within it.
int64_t pick(const Row& row, double uniform) {
    const std::vector<double>& sums = scratch().sums;
    const double at = uniform * row.sum;
    double before = 0.0;
    size_t block = 0;
    while (block + 1 < sums.size() && before + sums[block] <= at) before += sums[block++];
    int64_t last = most_likely(row);  // should rounding leave `at` beyond the end
    for (int64_t i = int64_t(block) * BLOCK; i < std::min(row.size, int64_t(block + 1) * BLOCK); ++i) {
        if (row.weights()[i] == 0.0f) continue;
        last = i;
        before += double(row.weights()[i]);
        if (before > at) break;
    }
    return last;
}

int64_t pick_kept(const Row& row, double uniform, double sum) {
    double before = 0.0;
    int64_t last = scratch().ids.front();
    for (const int32_t id : scratch().ids) {
        if (row.weights()[id] == 0.0f) continue;
        last = id;
        before += double(row.weights()[id]);
        if (before > uniform * sum) break;
    }
    return last;
}

// logits (size,) -> the token; shown (size,), the processed distribution, may be null
int64_t choose(const Distributions& passes, const float* logits, int64_t size, const Draw& draw,
               float* shown) {
    const Row row = prepare(passes, logits, size, float(draw.temperature));
    std::vector<int32_t>& kept = scratch().ids;
    int64_t token;
    double sum;
    if (draw.temperature == 0.0) {
        token = most_likely(row);
        kept.assign(1, int32_t(token));
        sum = double(row.weights()[token]);
    } else if (draw.top_p >= 1.0 && draw.min_p <= 0.0 &&
               (draw.top_k <= 0 || draw.top_k >= double(size))) {
        if (shown != nullptr) passes.log_softmax(row.scaled, size, row.log_sum, shown);
        return pick(row, draw.uniform);
    } else {
        truncate(row, draw);
        sum = 0.0;
        for (const int32_t id : kept) sum += double(row.weights()[id]);
        token = pick_kept(row, draw.uniform, sum);
    }
    if (shown == nullptr) return token;
    const LogSum log_sum = split(double(row.largest) + std::log(sum));
    std::fill(shown, shown + size, -std::numeric_limits<float>::infinity());
    for (const int32_t id : kept) shown[id] = (row.scaled[id] - log_sum.high) - log_sum.low;
    return token;
}

// row (size,) -> ids (count,), the largest first
void top(const Distributions& passes, const float* row, int64_t size, int64_t count, int64_t* ids) {
    std::vector<uint64_t>& keys = scratch().keys;
    find(passes, row, size, floor_of(passes, row, size, count));
    keys.clear();
    for (const int32_t id : scratch().ids) keys.push_back(key(row[id], id));
    const auto end = keys.begin() + count;
    if (end != keys.end()) std::nth_element(keys.begin(), end, keys.end());
    std::sort(keys.begin(), end);
    for (int64_t i = 0; i < count; ++i) ids[i] = id_of(keys[size_t(i)]);
}

}  // namespace

extern "C" {

// logits (R,V) -> sums (R,), and log-softmax (R,V) where it is not null
void tiedlm_log_sum_exp(void* handle, const float* logits, double* sums, float* logprobs,
                        int64_t num_rows, int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    const Distributions& passes = context.kernels.distributions;
    run(context, num_rows, OPERATIONS_PER_EXP * num_rows * vocab_size, [&](int64_t r) {
        const float* row = logits + r * vocab_size;
        sums[r] = log_sum_exp(passes, row, vocab_size);
        if (logprobs != nullptr)
            passes.log_softmax(row, vocab_size, split(sums[r]), logprobs + r * vocab_size);
    });
}

// logprobs (R,V) -> out (R,)
void tiedlm_entropy(void* handle, const float* logprobs, double* out, int64_t num_rows,
                    int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    run(context, num_rows, OPERATIONS_PER_EXP * num_rows * vocab_size, [&](int64_t r) {
        out[r] = context.kernels.distributions.entropy(logprobs + r * vocab_size, vocab_size);
    });
}

// logprobs (R,V); token i is of row rows[i] -> ranks (N,), the most likely token's being 1
void tiedlm_ranks(void* handle, const float* logprobs, const int64_t* rows, const int64_t* tokens,
                  int64_t* ranks, int64_t count, int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    run(context, count, count * vocab_size, [&](int64_t i) {
        ranks[i] = 1 + context.kernels.distributions.num_before(logprobs + rows[i] * vocab_size,
                                                                vocab_size, tokens[i]);
    });
}

// logprobs (R,V) -> ids (R,count)
void tiedlm_top(void* handle, const float* logprobs, int64_t* ids, int64_t num_rows,
                int64_t vocab_size, int64_t count) {
    Context& context = *static_cast<Context*>(handle);
    run(context, num_rows, 4 * num_rows * vocab_size, [&](int64_t r) {
        top(context.kernels.distributions, logprobs + r * vocab_size, vocab_size, count,
            ids + r * count);
    });
}

// logits (R,V), draws (R,5) -> tokens (R,), and the processed distributions (R,V) if not null
void tiedlm_choose(void* handle, const float* logits, const double* draws, int64_t* tokens,
                   float* shown, int64_t num_rows, int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    run(context, num_rows, OPERATIONS_PER_EXP * num_rows * vocab_size, [&](int64_t r) {
        const double* d = draws + 5 * r;
        tokens[r] = choose(context.kernels.distributions, logits + r * vocab_size, vocab_size,
                           {d[0], d[1], d[2], d[3], d[4]},
                           shown == nullptr ? nullptr : shown + r * vocab_size);
    });
}

}  // extern "C"
