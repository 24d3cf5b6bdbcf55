// Attention of a few queries over the pages of their sequence.
//
// Each (token, head) by itself does exactly this: pages in ascending order, in each page the keys
// it may see; softmax is online (Milakov & Gimelshein 2018) and its block is the page, so blocks
// follow from positions alone. Queries of an item only share the reading of keys and values.
#pragma once
#include "elementwise.hpp"
#include "jobs.hpp"
#include "linear.hpp"

namespace tiedlm {

constexpr int WIDE = 4;  // registers of a head's width that advance together

struct Softmax {
    float largest = -__builtin_inff();
    float total = 0.0f;
};

constexpr float COUNT[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Scores (size,) of keys that begin `distance` before their query: capped, if `cap` is not 0, then
// lessened by `slope` times their distance.
template <class V>
inline void bend(float* scores, int64_t size, float cap, float slope, int64_t distance) {
    const typename V::Reg limit = V::set(cap), fall = V::set(-slope);
    for (int64_t j = 0; j < size; j += LANES) {
        typename V::Reg score = V::load(scores + j);
        if (cap > 0) score = V::mul(limit, tanh_of<V>(V::div(score, limit)));
        const typename V::Reg far = V::sub(V::set(float(distance - j)), V::load(COUNT));
        V::store(scores + j, V::fma(fall, far, score));
    }
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

// One page's scores (size,) to weights, in place; -> by what earlier pages' sums shrink.
// Scores of keys that may not be seen are -inf, also from `size` up to a multiple of 16.
template <class V>
inline float weigh(float* scores, int64_t size, float scale, Softmax& state) {
    typename V::Reg top = V::set(-__builtin_inff());
    for (int64_t j = 0; j < size; j += LANES) {
        const typename V::Reg scaled = V::mul(V::load(scores + j), V::set(scale));
        V::store(scores + j, scaled);
        top = V::max(top, scaled);
    }
    const float page = V::largest(top);
    const float largest = page > state.largest ? page : state.largest;
    typename V::Reg sum = V::zero();
    for (int64_t j = 0; j < size; j += LANES) {
        const typename V::Reg w = exp_negative<V>(V::sub(V::load(scores + j), V::set(largest)));
        V::store(scores + j, w);
        sum = V::add(sum, w);
    }
    float shrink[LANES];
    V::store(shrink, exp_negative<V>(V::set(state.largest - largest)));
    state.total = state.total * shrink[0] + V::sum(sum);
    state.largest = largest;
    return shrink[0];
}

// sums (R,width) = sums * shrink + weights (R,last) @ values (last,width), for keys first..last
template <class V, int R, int D>
inline void add_values(float* sums, int64_t sums_stride, const float* weights,
                       int64_t weights_stride, const float* values, int64_t values_stride,
                       Range keys, const float* shrink, int width) {
    typename V::Reg sum[R][D], value[D];
    for (int r = 0; r < R; ++r)
        for (int d = 0; d < D; ++d)
            sum[r][d] = V::mul(V::load(sums + r * sums_stride + d * LANES), V::set(shrink[r]));
    for (int64_t j = keys.first; j < keys.last; ++j) {
        for (int d = 0; d < D; ++d) {
            const float* at = values + j * values_stride + d * LANES;
            value[d] = D == 1 && width < LANES ? V::load(at, width) : V::load(at);
        }
        for (int r = 0; r < R; ++r) {
            const typename V::Reg weight = V::set(weights[r * weights_stride + j]);
            for (int d = 0; d < D; ++d) sum[r][d] = V::fma(weight, value[d], sum[r][d]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int d = 0; d < D; ++d) V::store(sums + r * sums_stride + d * LANES, sum[r][d]);
}

template <class V, int R>
struct Attending {
    const Attention& job;
    const Item& item;
    const int64_t D = job.head_dim, width = round_up(D, LANES);
    const int64_t scores_stride = round_up(job.page_size, LANES);
    const int64_t keys_stride = job.num_kv_heads * D;
    float *queries, *sums, *scores;
    Softmax state[R];

    Attending(const Attention& job, const Item& item, float* scratch)
        : job(job), item(item), queries(scratch), sums(queries + R * width),
          scores(sums + R * width) {}

    int64_t place(int r) const {  // of query r in q and out
        return ((item.token + r / item.num_heads) * job.num_heads + item.head +
                r % item.num_heads) * D;
    }
    Range visible(int r) const {
        const int64_t last = item.position + r / item.num_heads + 1;
        return {job.window > 0 && last > job.window ? last - job.window : 0, last};
    }
    // ... in the page that begins at `base`, relative to it; empty where first >= last
    Range visible(int r, int64_t base) const {
        const Range all = visible(r);
        return {all.first > base ? all.first - base : 0,
                all.last - base < job.page_size ? all.last - base : job.page_size};
    }

    void run() {
        for (int r = 0; r < R; ++r) {
            for (int64_t d = 0; d < D; ++d) queries[r * width + d] = job.q[place(r) + d];
            for (int64_t d = 0; d < width; ++d) sums[r * width + d] = 0.0f;
        }
        const int64_t end = visible(R - 1).last;
        for (int64_t page = visible(0).first / job.page_size; page * job.page_size < end; ++page)
            look(page);
        for (int r = 0; r < R; ++r)
            for (int64_t d = 0; d < D; ++d)
                job.out[place(r) + d] = sums[r * width + d] / state[r].total;
    }

    void look(int64_t page) {
        const int64_t base = page * job.page_size;
        const int64_t kv_head = item.head / (job.num_heads / job.num_kv_heads);
        const int64_t slot = job.pages[item.pages + page] * job.page_size;
        const int64_t at = (slot * job.num_kv_heads + kv_head) * D;
        const Range first = visible(0, base), last = visible(R - 1, base);
        const Range any = {first.first < last.first ? first.first : last.first, last.last};
        dot_rows<V, float, R>(queries, width, job.keys + at + any.first * keys_stride, keys_stride,
                              D, any.last - any.first, scores + any.first, scores_stride);
        float shrink[R];
        if (job.cap > 0 || job.slopes != nullptr)
            for (int r = 0; r < R; ++r) bend_row(r, base);
        for (int r = 0; r < R; ++r) shrink[r] = hide_and_weigh(r, visible(r, base));
        if (first.first == last.first && first.last == last.last) {
            add<R>(0, job.values + at, first, shrink);
            return;
        }
        for (int r = 0; r < R; ++r) add<1>(r, job.values + at, visible(r, base), shrink + r);
    }

    // Leaves -inf out: what may not be seen is hidden afterwards.
    void bend_row(int r, int64_t base) {
        float* row = scores + r * scores_stride;
        const float slope =
            job.slopes == nullptr ? 0.0f : job.slopes[item.head + r % item.num_heads];
        const int64_t position = item.position + r / item.num_heads;
        for (int64_t j = 0; job.is_coarse && j < scores_stride; ++j)
            row[j] += coarse_bias(slope, base + j) - coarse_bias(slope, position);
        for (int64_t j = 0; j < scores_stride; ++j) row[j] *= job.scale;
        bend<V>(row, scores_stride, job.cap, job.is_coarse ? 0.0f : slope, position - base);
    }

    float hide_and_weigh(int r, Range keys) {
        if (keys.first >= keys.last) return 1.0f;
        float* row = scores + r * scores_stride;
        for (int64_t j = 0; j < keys.first; ++j) row[j] = -__builtin_inff();
        for (int64_t j = keys.last; j < scores_stride; ++j) row[j] = -__builtin_inff();
        const bool is_scaled = job.cap > 0 || job.slopes != nullptr;
        return weigh<V>(row, job.page_size, is_scaled ? 1.0f : job.scale, state[r]);
    }

    template <int Q>
    void add(int r, const float* values, Range keys, const float* shrink) {
        if (keys.first >= keys.last) return;
        const float* weights = scores + r * scores_stride;
        int64_t d = 0;
        for (; d + WIDE * LANES <= D; d += WIDE * LANES)
            add_values<V, Q, WIDE>(sums + r * width + d, width, weights, scores_stride, values + d,
                                   keys_stride, keys, shrink, LANES);
        for (; d < D; d += LANES) {
            const int rest = D - d < LANES ? int(D - d) : LANES;
            add_values<V, Q, 1>(sums + r * width + d, width, weights, scores_stride, values + d,
                                keys_stride, keys, shrink, rest);
        }
    }
};

template <class V, int R = V::ROWS>
void attend(const Attention& job, const Item& item, float* scratch) {
    if constexpr (R > 1) {
        if (item.num_tokens * item.num_heads < R) return attend<V, R - 1>(job, item, scratch);
    }
    Attending<V, R>(job, item, scratch).run();
}

}  // namespace tiedlm
