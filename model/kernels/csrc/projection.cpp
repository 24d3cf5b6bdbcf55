// The tied projection, answered block by block of the vocabulary: no row of logits is ever whole.
//
// Each block's logits are reduced where they were computed: sums of exponentials, the largest of
// each 64, how many are above a token asked for. Once all blocks are known, what these do not
// settle - which tokens are the likeliest, what is within roundings of a token asked for - is
// computed once more, a few outputs of one row at a time, with the same bits. A row that is not
// finite, or too wide for the roundings allowed for, is computed whole, as if it were the only way.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "selection.hpp"
#include "table.hpp"

using namespace tiedlm;

namespace {

constexpr float MAX_DISTANCE = 64.0f;  // nats, of a token asked for to the log-sum
constexpr int64_t GROUPS = BLOCK / MAXIMA;  // of a block

// N rows; each may be null, but for those that belong together.
struct Told {
    const int64_t* ids;  // (N,num_ids), with id_logits and ranks
    int64_t num_ids;
    float* id_logits;
    int64_t* ranks;  // needs sums
    int64_t num_top;  // more than one needs sums
    int64_t* top_ids;  // (N,num_top)
    float* top_logits;
    double* sums;  // (N,)
    double* entropies;  // (N,), needs sums
};

// How many logits of a block are surely above a token asked for, and how many may have its
// log-probability.
struct Above {
    int64_t sure, near;
};

// Surely has its own log-probability what is more than this away from `logit`.
float band(float logit) { return 4e-7f * (std::fabs(logit) + MAX_DISTANCE); }

class Projection {
  public:
    Projection(const Table& table, const Told& told, int64_t num_rows, int64_t vocab_size)
        : table(table), told(told), num_rows(num_rows), vocab_size(vocab_size),
          blocks(num_blocks(vocab_size)), passes(table.context.kernels.distributions) {
        is_finite.assign(size_t(num_rows * blocks), 1);
        if (told.sums != nullptr) summaries.resize(size_t(num_rows * blocks));
        if (told.num_top > 0) maxima.resize(size_t(num_rows * blocks * GROUPS));
        above.resize(size_t(num_rows * told.num_ids * blocks));
    }

    void answer() {
        Context& context = table.context;
        const int64_t asked = num_rows * told.num_ids;
        run(context, asked, asked * table.operations() / (num_rows * vocab_size) * TILE,
            [&](int64_t i) { look_at(i / told.num_ids, i); });
        const int64_t stripe = table.stripe(), stripes = (num_rows + stripe - 1) / stripe;
        run(context, stripes * blocks, table.operations(), [&](int64_t i) {
            const int64_t first = i % stripes * stripe;
            reduce({first, std::min(first + stripe, num_rows)}, i / stripes);
        });
        run(context, num_rows, table.operations() / 32, [&](int64_t row) { finish(row); });
    }

  private:
    Range outputs_of(int64_t block) const {
        return {block * BLOCK, std::min((block + 1) * BLOCK, vocab_size)};
    }

    void look_at(int64_t row, int64_t i) const {
        const int64_t first = told.ids[i] / TILE * TILE;
        const Range outputs{first, std::min(first + TILE, vocab_size)};
        told.id_logits[i] = table.logits({row, row + 1}, outputs)[told.ids[i] - first];
    }

    void reduce(Range rows, int64_t block) {
        const Range outputs = outputs_of(block);
        const int64_t size = outputs.last - outputs.first;
        const float* logits = table.logits(rows, outputs);
        for (int64_t row = rows.first; row < rows.last; ++row, logits += size) {
            const int64_t at = row * blocks + block;
            is_finite[size_t(at)] = passes.is_finite(logits, size);
            if (told.sums != nullptr)
                summaries[size_t(at)] =
                    passes.summarise(logits, size, told.entropies != nullptr);
            if (told.num_top > 0) passes.maxima(logits, size, &maxima[size_t(at * GROUPS)]);
            for (int64_t i = row * told.num_ids; i < (row + 1) * told.num_ids; ++i) {
                const float here = told.id_logits[i], step = band(here);
                Above& found = above[size_t(i * blocks + block)] = {0, 0};
                found.sure = passes.num_above(logits, size, here - step, here + step, &found.near);
            }
        }
    }

    void finish(int64_t row) {
        const auto finite = is_finite.begin() + row * blocks;
        if (std::find(finite, finite + blocks, 0) != finite + blocks) return finish_whole(row);
        LogSum sum{0.0f, 0.0f};
        if (told.sums != nullptr) {
            const RowSums found = sum_up(&summaries[size_t(row * blocks)], blocks);
            told.sums[row] = found.log_sum;
            if (told.entropies != nullptr) told.entropies[row] = found.entropy;
            sum = split(found.log_sum);
        }
        for (int64_t i = row * told.num_ids; i < (row + 1) * told.num_ids; ++i) {
            const bool is_near = std::fabs(told.id_logits[i] - sum.high) <= MAX_DISTANCE;
            if (!is_near) return finish_whole(row);
            told.ranks[i] = 1 + num_before(row, i, sum);
        }
        if (told.num_top > 0 && !find_top(row, sum)) finish_whole(row);
    }

    int64_t num_before(int64_t row, int64_t i, LogSum sum) const {
        const Above* found = &above[size_t(i * blocks)];
        int64_t count = 0, near = 0;
        for (int64_t block = 0; block < blocks; ++block) {
            count += found[block].sure;
            near += found[block].near;
        }
        if (near == 1) return count;  // itself
        const float step = band(told.id_logits[i]), here = logprob(sum, told.id_logits[i]);
        for (int64_t block = 0; block < blocks; ++block) {
            if (found[block].near == 0) continue;
            const Range outputs = outputs_of(block);
            const float* logits = table.logits({row, row + 1}, outputs) - outputs.first;
            for (int64_t id = outputs.first; id < outputs.last; ++id) {
                if (std::fabs(logits[id] - told.id_logits[i]) > 2.0f * step) continue;
                if (logits[id] > told.id_logits[i] + step) continue;  // counted
                const float there = logprob(sum, logits[id]);
                count += there > here || (there == here && id < told.ids[i]);
            }
        }
        return count;
    }

    // false: the log-sum would have to be known
    bool find_top(int64_t row, LogSum sum) const {
        Scratch& own = scratch();
        const int64_t groups = (vocab_size + MAXIMA - 1) / MAXIMA;
        const float* largest = &maxima[size_t(row * blocks * GROUPS)];
        own.maxima.assign(largest, largest + groups);
        const float floor = floor_of(own.maxima, told.num_top);
        const float distance = told.sums == nullptr ? 0.0f : std::fabs(floor - sum.high);
        const float least = step_below(floor, distance);
        own.keys.clear();
        own.logits.clear();
        for (int64_t group = 0; group < groups; ++group)
            if (largest[group] >= least) gather(row, group, least, sum);
        if (told.sums == nullptr && own.keys.size() > 1) return false;
        own.order.resize(own.keys.size());
        for (size_t i = 0; i < own.order.size(); ++i) own.order[i] = int32_t(i);
        const auto by_key = [&](int32_t a, int32_t b) {
            return own.keys[size_t(a)] < own.keys[size_t(b)];
        };
        std::partial_sort(own.order.begin(), own.order.begin() + told.num_top, own.order.end(),
                          by_key);
        for (int64_t i = 0; i < told.num_top; ++i) {
            const size_t at = size_t(own.order[size_t(i)]);
            told.top_ids[row * told.num_top + i] = id_of(own.keys[at]);
            told.top_logits[row * told.num_top + i] = own.logits[at];
        }
        return true;
    }

    // The logits of a group that are at least so much, and their keys
    void gather(int64_t row, int64_t group, float least, LogSum sum) const {
        Scratch& own = scratch();
        const int64_t first = group * MAXIMA, last = std::min(first + MAXIMA, vocab_size);
        const float* logits = table.logits({row, row + 1}, {first, last}) - first;
        for (int64_t id = first; id < last; ++id) {
            if (logits[id] < least) continue;
            own.keys.push_back(key(logprob(sum, logits[id]), int32_t(id)));
            own.logits.push_back(logits[id]);
        }
    }

    void finish_whole(int64_t row) const {
        static thread_local std::vector<float> whole;
        whole.resize(size_t(vocab_size));
        for (int64_t block = 0; block < blocks; ++block) {
            const Range outputs = outputs_of(block);
            std::memcpy(&whole[size_t(outputs.first)], table.logits({row, row + 1}, outputs),
                        size_t(outputs.last - outputs.first) * sizeof(float));
        }
        const float* logits = whole.data();
        LogSum sum{0.0f, 0.0f};
        if (told.sums != nullptr) {
            const RowSums found = sums_of(passes, logits, vocab_size, told.entropies != nullptr);
            told.sums[row] = found.log_sum;
            if (told.entropies != nullptr) told.entropies[row] = found.entropy;
            sum = split(found.log_sum);
        }
        for (int64_t i = row * told.num_ids; i < (row + 1) * told.num_ids; ++i)
            told.ranks[i] = 1 + passes.num_before(logits, vocab_size, sum, told.ids[i]);
        if (told.num_top == 0) return;
        int64_t* ids = told.top_ids + row * told.num_top;
        if (told.sums == nullptr)
            *ids = most_likely(passes, logits, vocab_size, NAN);
        else
            top(passes, logits, vocab_size, sum, told.num_top, ids);
        for (int64_t i = 0; i < told.num_top; ++i)
            told.top_logits[row * told.num_top + i] = logits[ids[i]];
    }

    const Table& table;
    const Told told;
    const int64_t num_rows, vocab_size, blocks;
    const Distributions& passes;
    std::vector<uint8_t> is_finite;    // (N,blocks)
    std::vector<Summary> summaries;    // (N,blocks)
    std::vector<float> maxima;         // (N,blocks,GROUPS)
    std::vector<Above> above;          // (N,num_ids,blocks)
};

}  // namespace

extern "C" {

// x (N,C), table (V,C): of floats (`matrix`), or of codes where `kind` is not null. See Told.
void tiedlm_project(void* handle, const float* x, const void* table, int matrix,
                    const int32_t* kind, int64_t num_rows, int64_t width, int64_t vocab_size,
                    float scale, float cap, const int64_t* ids, int64_t num_ids, float* id_logits,
                    int64_t* ranks, int64_t num_top, int64_t* top_ids, float* top_logits,
                    double* sums, double* entropies) {
    if (num_rows == 0) return;
    const Table rows(*static_cast<Context*>(handle), x, table, Matrix(matrix), kind, num_rows,
                     width, vocab_size, {scale, cap});
    const Told told{ids,     num_ids,    id_logits, ranks,    num_top,
                    top_ids, top_logits, sums,      entropies};
    Projection(rows, told, num_rows, vocab_size).answer();
}

}  // extern "C"
