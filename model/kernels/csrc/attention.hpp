// Attention of some queries over the pages of their sequence.
//
// Each (token, head) by itself does exactly this: blocks of PAGES pages in ascending order, in each
// block the keys it may see; softmax is online (Milakov & Gimelshein 2018) and its block is that
// block, so blocks follow from positions alone. Queries of an item only share the reading of keys
// and values: every score is a sum over ascending d, CHAIN at a time, every output one over ascending keys.
//
// A page holds its keys as (D,page_size), so that 16 keys are the lanes of a register and their
// scores need no sum across lanes.
#pragma once
#include "attention_tiles.hpp"
#include "elementwise.hpp"
#include "jobs.hpp"

namespace tiedlm {

constexpr int PAGES = 4;   // a block

constexpr float COUNT[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// 16 scores of keys whose distances from their query are `distance` and less: capped, if `cap` is
// not 0, then lessened by `slope` times their distance.
template <class V>
inline typename V::Reg bend(typename V::Reg score, float cap, float slope, int64_t distance) {
    const typename V::Reg limit = V::set(cap);
    if (cap > 0) score = V::mul(limit, tanh_of<V>(V::div(score, limit)));
    const typename V::Reg far = V::sub(V::set(float(distance)), V::load(COUNT));
    return V::fma(V::set(-slope), far, score);
}

inline float to_bfloat16(float x) {  // ties to even; x is finite
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000u;
    __builtin_memcpy(&x, &bits, sizeof bits);
    return x;
}

// What Falcon adds to the product of a query with the key at `position`. What its own place would
// get is taken off again: all keys alike, so that no weight changes, and sums stay small.
inline float coarse_bias(float slope, int64_t position) {
    return to_bfloat16(to_bfloat16(slope) * to_bfloat16(float(position)));
}

template <class V>
struct Attending {
    using Reg = typename V::Reg;

    const Attention& job;
    const Item& item;
    const int64_t D = job.head_dim, width = round_up(D, LANES);
    const int64_t page_size = job.page_size, runs = round_up(page_size, LANES) / LANES;  // a page
    const int64_t row = PAGES * runs * LANES;  // of a block's scores
    const int count = item.num_tokens * item.num_heads;
    float *queries, *sums, *totals, *largest, *scores;

    Attending(const Attention& job, const Item& item, float* scratch)
        : job(job), item(item), queries(scratch), sums(queries + count * width),
          totals(sums + count * width), largest(totals + count * LANES), scores(largest + count) {}

    int64_t place(int r) const {  // of query r in q and out
        return ((item.token + r / item.num_heads) * job.num_heads + item.head +
                r % item.num_heads) * D;
    }
    Range visible(int r) const {
        const int64_t last = item.position + r / item.num_heads + 1;
        return {job.window > 0 && last > job.window ? last - job.window : 0, last};
    }
    // ... in the block that begins at `base`, relative to it; empty where first >= last
    Range visible(int r, int64_t base) const {
        const Range all = visible(r);
        const int64_t first = all.first > base ? all.first - base : 0;
        return {first, all.last - base < PAGES * page_size ? all.last - base : PAGES * page_size};
    }
    const float* page(const float* cache, int64_t index) const {
        const int64_t kv_head = item.head / (job.num_heads / job.num_kv_heads);
        return cache + (job.pages[item.pages + index] * job.num_kv_heads + kv_head) * D * page_size;
    }
    // The place of a block's key in a row of scores: runs of 16 do not go beyond their page.
    int64_t lane(int64_t key) const {
        return key / page_size * runs * LANES + key % page_size;
    }

    void run() {
        const int64_t block = PAGES * page_size, end = visible(count - 1).last;
        const int64_t begin = visible(0).first / block * block;
        for (int64_t p = begin / page_size; p < begin / page_size + PAGES && p * page_size < end; ++p)
            for (int64_t i = 0; i < D * page_size; i += LANES) ask_for(page(job.keys, p) + i);
        for (int r = 0; r < count; ++r) {
            largest[r] = -__builtin_inff();
            for (int64_t d = 0; d < D; ++d)
                queries[r * width + d] = job.q[place(r) + d] * job.scale;
            for (int64_t d = 0; d < width; ++d) sums[r * width + d] = 0.0f;
            V::store(totals + r * LANES, V::zero());
        }
        for (int64_t base = begin; base < end; base += block)
            for (int r = 0; r < count; r += V::ROWS)
                look_any<V::ROWS>(r, count - r < V::ROWS ? count - r : V::ROWS, base);
        for (int r = 0; r < count; ++r) {
            const float total = V::sum(V::load(totals + r * LANES));
            for (int64_t d = 0; d < D; ++d) job.out[place(r) + d] = sums[r * width + d] / total;
        }
    }

    template <int R>
    void look_any(int first, int num, int64_t base) {
        if constexpr (R > 1) {
            if (num < R) return look_any<R - 1>(first, num, base);
        }
        look<R>(first, base);
    }

    // Queries q .. q + R - 1 at the block that begins at `base`
    template <int R>
    void look(int q, int64_t base) {
        const Range first = visible(q, base), last = visible(q + R - 1, base);
        const Range any = {first.first, last.last};
        if (any.first >= any.last) return;
        const int64_t pages_first = any.first / page_size;
        const int64_t pages_last = (any.last + page_size - 1) / page_size;
        score<R>(q, base / page_size, pages_first, pages_last);
        for (int r = 0; r < R; ++r) {
            const Range runs_of = {pages_first * runs, pages_last * runs};
            weigh(q + r, scores + r * row, runs_of, visible(q + r, base), base);
        }
        // Each query adds its own keys, in order. What all may see they add together.
        const int64_t from = last.first > any.first ? last.first : any.first;
        const Range all = {from, first.last > from ? first.last : from};
        for (int r = 0; r < R; ++r) {
            const Range own = visible(q + r, base);
            add<1>(q + r, r, base, {own.first, own.last < all.first ? own.last : all.first});
        }
        add<R>(q, 0, base, all);
        for (int r = 0; r < R; ++r) {
            const Range own = visible(q + r, base);
            add<1>(q + r, r, base, {own.first > all.last ? own.first : all.last, own.last});
        }
    }

    template <int R>
    void score(int q, int64_t page_of_block, int64_t first, int64_t last) {
        const float *keys[PAGES], *values[PAGES];
        const auto* ahead = q == 0 ? values : nullptr;  // the first asks for all
        int64_t p = first;
        if (page_size == LANES)
            for (; p + V::OUTPUTS <= last; p += V::OUTPUTS) {
                for (int i = 0; i < V::OUTPUTS; ++i) {
                    keys[i] = page(job.keys, page_of_block + p + i);
                    values[i] = page(job.values, page_of_block + p + i);
                }
                score_tile<V, R, V::OUTPUTS, true>(queries + q * width, width, D, keys, ahead,
                                                   page_size, LANES, scores + p * LANES, row);
            }
        for (; p < last; ++p)
            for (int64_t i = 0; i < runs; ++i) {
                const int64_t left = page_size - i * LANES;
                keys[0] = page(job.keys, page_of_block + p) + i * LANES;
                float* out = scores + (p * runs + i) * LANES;
                if (left >= LANES)
                    score_tile<V, R, 1, true>(queries + q * width, width, D, keys, nullptr, page_size,
                                              LANES, out, row);
                else
                    score_tile<V, R, 1, false>(queries + q * width, width, D, keys, nullptr, page_size,
                                               int(left), out, row);
            }
    }

    // Scores of one query to weights, in place, for `within` runs of 16. Where a larger score comes
    // up, what was summed before shrinks.
    void weigh(int q, float* scored, Range within, Range seen, int64_t base) {
        if (seen.first >= seen.last) return;
        if (job.cap > 0 || job.slopes != nullptr) bend_row(q, scored, within, base);
        hide(scored, within, seen);
        Reg top = V::set(-__builtin_inff());
        for (int64_t i = within.first; i < within.last; ++i)
            top = V::max(top, V::load(scored + i * LANES));
        const float block = V::largest(top);
        Reg total = V::load(totals + q * LANES);
        if (block > largest[q]) {
            const Reg shrink = exp_negative<V>(V::set(largest[q] - block));
            total = V::mul(total, shrink);
            for (int64_t d = 0; d < width; d += LANES)
                V::store(sums + q * width + d, V::mul(V::load(sums + q * width + d), shrink));
            largest[q] = block;
        }
        const Reg shift = V::set(largest[q]);
        for (int64_t i = within.first; i < within.last; ++i) {
            const Reg weight = exp_negative<V>(V::sub(V::load(scored + i * LANES), shift));
            V::store(scored + i * LANES, weight);
            total = V::add(total, weight);
        }
        V::store(totals + q * LANES, total);
    }

    void hide(float* scored, Range within, Range seen) const {
        const int64_t first = lane(seen.first), last = lane(seen.last - 1) + 1;
        for (int64_t i = within.first * LANES; i < first; ++i) scored[i] = -__builtin_inff();
        for (int64_t i = last; i < within.last * LANES; ++i) scored[i] = -__builtin_inff();
        if (page_size % LANES == 0) return;
        for (int64_t p = within.first / runs; p < within.last / runs; ++p)
            for (int64_t i = page_size; i < runs * LANES; ++i)
                scored[p * runs * LANES + i] = -__builtin_inff();
    }

    void bend_row(int q, float* scored, Range within, int64_t base) const {
        const int head = int(item.head) + q % item.num_heads;
        const float slope = job.slopes == nullptr ? 0.0f : job.slopes[head];
        const int64_t position = item.position + q / item.num_heads;
        for (int64_t i = within.first; i < within.last; ++i) {
            const int64_t key = base + i / runs * page_size + i % runs * LANES;
            float* run = scored + i * LANES;
            for (int64_t j = 0; job.is_coarse && j < LANES; ++j)
                run[j] +=
                    (coarse_bias(slope, key + j) - coarse_bias(slope, position)) * job.scale;
            V::store(run, bend<V>(V::load(run), job.cap, job.is_coarse ? 0.0f : slope,
                                     position - key));
        }
    }

    // Keys `keys` of the block to the sums of queries q .. q + R - 1, whose scores begin at row r.
    template <int R>
    void add(int q, int r, int64_t base, Range keys) {
        if (keys.first >= keys.last) return;
        Part parts[PAGES];
        int num_parts = 0;
        for (int64_t j = keys.first; j < keys.last;) {
            const int64_t p = j / page_size, end = (p + 1) * page_size;
            const int64_t next = end < keys.last ? end : keys.last;
            const int64_t index = base / page_size + p, first = j % page_size * D;
            const float* values = page(job.values, index) + first;
            // The first group of an item asks for the next block's keys.
            const bool asks = q == 0 && (index + PAGES) * page_size < visible(count - 1).last;
            const float* ahead = asks ? page(job.keys, index + PAGES) + first : nullptr;
            parts[num_parts++] = {scores + r * row + lane(j), values, ahead, next - j};
            j = next;
        }
        float* to = sums + q * width;
        int64_t d = 0;
        for (; d + V::OUTPUTS * LANES <= D; d += V::OUTPUTS * LANES)
            add_tile<V, R, V::OUTPUTS>(to, width, parts, num_parts, row, d, D, LANES);
        for (; d < D; d += LANES)
            add_tile<V, R, 1>(to, width, parts, num_parts, row, d, D,
                              D - d < LANES ? int(D - d) : LANES);
    }
};

template <class V>
void attend(const Attention& job, const Item& item, float* scratch) {
    Attending<V>(job, item, scratch).run();
}

}  // namespace tiedlm
