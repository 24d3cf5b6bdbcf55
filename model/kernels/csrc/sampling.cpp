// From rows of logits to tokens: what of a distribution is kept, and what is drawn from it.
//
// A row is one thread's from beginning to end. Its weights are e^(x - largest), the same for equal x.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "selection.hpp"

using namespace tiedlm;

namespace {

// As tiedlm_choose gets it; all float64, so that Python hands over one array.
struct Draw {
    double temperature, top_k, top_p, min_p, uniform;
};

double total(const std::vector<double>& sums) {
    double all = 0.0;
    for (const double sum : sums) all += sum;
    return all;
}

double mass(const float* weights, const uint64_t* first, const uint64_t* last) {
    double sum = 0.0;
    for (; first != last; ++first) sum += double(weights[id_of(*first)]);
    return sum;
}

// One row being drawn from. What is kept of it are the first by its scaled logits, ties to the lowest
// id.
struct Row {
    const Distributions& passes;
    const float* logits;
    int64_t size;
    float temperature, largest;  // of the scaled
    double sum;                  // of the weights

    float scaled(int32_t id) const { return logits[id] / temperature; }
    // -0 is 0 here as everywhere
    uint64_t key(int32_t id) const { return tiedlm::key(scaled(id) + 0.0f, id); }
    const float* weights() const { return scratch().weights.data(); }
};

// Leaves the fewest of the first keys in order whose mass reaches `target`. Buckets of an eighth of
// a nat say which keys are surely in or out; those at the border are halved, not sorted.
void keep_nucleus(std::vector<uint64_t>& keys, const Row& row, double target) {
    constexpr int BUCKETS = 512;
    const auto bucket = [&](uint64_t each) {
        const float below = (row.largest - row.scaled(id_of(each))) * 8.0f;
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
    own.weights.resize(size_t(size));
    own.sums.resize(size_t(num_blocks(size)));
    const float largest = passes.largest(logits, size) / temperature;
    passes.exponentials(logits, size, temperature, largest, own.weights.data(), own.sums.data());
    return {passes, logits, size, temperature, largest, total(own.sums)};
}

// A weight such that the heavier ones have `target` of the mass, but not much more; `least` at the
// lowest. Below it is what keep_nucleus cannot tell apart, and roundings: 0.88 is e^-0.128.
float heavy(const Row& row, double target, float least) {
    constexpr double SURELY = 1 + 1e-3;  // more than mass_from loses
    for (float floor = 0.25f; floor > least; floor *= 0.25f)
        if (double(row.passes.mass_from(row.weights(), row.size, floor)) >= SURELY * target)
            return std::max(least, 0.88f * floor);
    return least;
}

// Ids that may be among the kept, as keys: all of the kept, and not many more.
void find_candidates(const Row& row, const Draw& draw) {
    Scratch& own = scratch();
    if (draw.top_k > 0 && draw.top_k < double(row.size)) {
        own.maxima.resize(size_t((row.size + MAXIMA - 1) / MAXIMA));
        row.passes.maxima(row.logits, row.size, own.maxima.data());
        const float floor = floor_of(own.maxima, int64_t(draw.top_k));
        find(row.passes, row.logits, row.size, step_below(floor, 0.0f));
    } else {
        // What is lighter than this weighs less than 1 - top_p all together.
        const double light = 0.5 * (1.0 - draw.top_p) * row.sum / double(row.size);
        const float least = float(std::max(light, draw.min_p) * (1 - 1e-6));
        const bool is_nucleus = draw.top_p < 1.0;
        find(row.passes, row.weights(), row.size,
             is_nucleus ? heavy(row, draw.top_p * row.sum, least) : least);
    }
    own.keys.clear();
    for (const int32_t id : own.ids) own.keys.push_back(row.key(id));
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

// Where `uniform` falls in the cumulative sum over all ids: the block first, and then within it,
// whose weights are computed once more rather than all of them stored.
int64_t pick(const Distributions& passes, const float* logits, int64_t size, float temperature,
             double uniform) {
    std::vector<double>& sums = scratch().sums;
    sums.resize(size_t(num_blocks(size)));
    const float largest = passes.largest(logits, size) / temperature;
    passes.exponentials(logits, size, temperature, largest, nullptr, sums.data());
    const double at = uniform * total(sums);
    double before = 0.0;
    size_t block = 0;
    while (block + 1 < sums.size() && before + sums[block] <= at) before += sums[block++];
    const int64_t first = int64_t(block) * BLOCK, count = std::min(BLOCK, size - first);
    float weights[BLOCK];
    double sum;
    passes.exponentials(logits + first, count, temperature, largest, weights, &sum);
    int64_t last = -1;
    for (int64_t i = 0; i < count; ++i) {
        if (weights[i] == 0.0f) continue;
        last = first + i;
        before += double(weights[i]);
        if (before > at) break;
    }
    if (last >= 0) return last;
    return most_likely(passes, logits, size, NAN);  // rounding has left `at` beyond the end
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

// logits (size,) -> the token. log_sum: of the logits, NaN where it is not known; shown (size,), the
// processed distribution, may be null.
int64_t choose(const Distributions& passes, const float* logits, int64_t size, const Draw& draw,
               double log_sum, float* shown) {
    const bool is_greedy = draw.temperature == 0.0;
    const bool is_whole = draw.top_p >= 1.0 && draw.min_p <= 0.0 &&
                          (draw.top_k <= 0 || draw.top_k >= double(size));
    int64_t token = -1;
    if (is_greedy)
        token = most_likely(passes, logits, size, log_sum);
    else if (is_whole)
        token = pick(passes, logits, size, float(draw.temperature), draw.uniform);
    if (token >= 0 && shown == nullptr) return token;
    const float temperature = is_greedy ? 1.0f : float(draw.temperature);
    if (is_whole && !is_greedy) {
        passes.divide(logits, size, temperature, shown);
        const LogSum sum = split(sums_of(passes, shown, size, false).log_sum);
        passes.log_softmax(shown, size, sum, shown);
        return token;
    }
    const Row row = prepare(passes, logits, size, temperature);
    std::vector<int32_t>& kept = scratch().ids;
    if (is_greedy)
        kept.assign(1, int32_t(token));
    else
        truncate(row, draw);
    double sum = 0.0;
    for (const int32_t id : kept) sum += double(row.weights()[id]);
    if (!is_greedy) token = pick_kept(row, draw.uniform, sum);
    if (shown == nullptr) return token;
    const LogSum kept_sum = split(double(row.largest) + std::log(sum));
    std::fill(shown, shown + size, -std::numeric_limits<float>::infinity());
    for (const int32_t id : kept) shown[id] = logprob(kept_sum, row.scaled(id));
    return token;
}

}  // namespace

extern "C" {

// logits (R,V), their log-sums (R,) (NaN where not known), draws (R,5) -> tokens (R,), and the
// processed distributions (R,V) if not null
void tiedlm_choose(void* handle, const float* logits, const double* sums, const double* draws,
                   int64_t* tokens, float* shown, int64_t num_rows, int64_t vocab_size) {
    Context& context = *static_cast<Context*>(handle);
    run(context, num_rows, OPERATIONS_PER_EXP * num_rows * vocab_size, [&](int64_t r) {
        const double* d = draws + 5 * r;
        tokens[r] = choose(context.kernels.distributions, logits + r * vocab_size, vocab_size,
                           {d[0], d[1], d[2], d[3], d[4]}, sums[r],
                           shown == nullptr ? nullptr : shown + r * vocab_size);
    });
}

}  // extern "C"
