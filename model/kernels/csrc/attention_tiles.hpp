// What attention does with registers: scores of some queries with some keys, and sums of values.
//
// A score is a sum over ascending d, CHAIN at a time, an output a sum over ascending keys.
#pragma once
#include "jobs.hpp"
#include "linear.hpp"

namespace tiedlm {

constexpr int CHAIN = 32;  // products that follow one another in a sum: longer ones round worse

// Pages lie anywhere, so that the processor's own prefetcher finds no stream.
inline void ask_for(const float* at) { __builtin_prefetch(at, 0, 2); }

// R queries (R,D) times N runs of 16 keys, each (D,16) with rows `keys_stride` apart, of which the
// first `lanes` exist -> scores[r * scores_stride + 16 * n ..]; meanwhile what lies at the same
// places of `ahead` is asked for, if that is not null
template <class V, int R, int N, bool WHOLE>
inline void score_tile(const float* queries, int64_t width, int64_t D, const float* const* keys,
                       const float* const* ahead, int64_t keys_stride, int lanes, float* scores,
                       int64_t scores_stride) {
    typename V::Reg sum[R][N], key[N];
    for (int64_t first = 0; first < D; first += CHAIN) {
        TIEDLM_UNROLL for (int r = 0; r < R; ++r)
            TIEDLM_UNROLL for (int n = 0; n < N; ++n) sum[r][n] = V::zero();
        const int64_t last = first + CHAIN < D ? first + CHAIN : D;
        for (int64_t d = first; d < last; ++d) {
            TIEDLM_UNROLL for (int n = 0; n < N; ++n) {
                const float* at = keys[n] + d * keys_stride;
                key[n] = WHOLE ? V::load(at) : V::load(at, lanes);
                if (ahead != nullptr) ask_for(ahead[n] + d * keys_stride);
            }
            TIEDLM_UNROLL for (int r = 0; r < R; ++r) {
                const typename V::Reg query = V::set(queries[r * width + d]);
                TIEDLM_UNROLL for (int n = 0; n < N; ++n)
                    sum[r][n] = V::fma(query, key[n], sum[r][n]);
            }
        }
        TIEDLM_UNROLL for (int r = 0; r < R; ++r)
            TIEDLM_UNROLL for (int n = 0; n < N; ++n) {
                float* out = scores + r * scores_stride + n * LANES;
                V::store(out, first == 0 ? sum[r][n] : V::add(V::load(out), sum[r][n]));
            }
    }
}

// Keys of one page that some queries add: weights (R,count), values (count,D). ahead: null, or what
// to ask for meanwhile, as long as the values.
struct Part {
    const float *weights, *values, *ahead;
    int64_t count;
};

// sums (R,16*D) += weights @ values, part after part; of the last run of 16 `rest` exist
template <class V, int R, int D>
inline void add_tile(float* sums, int64_t width, const Part* parts, int num_parts,
                     int64_t weights_stride, int64_t first, int64_t values_stride, int rest) {
    typename V::Reg sum[R][D], value[D];
    TIEDLM_UNROLL for (int r = 0; r < R; ++r)
        TIEDLM_UNROLL for (int d = 0; d < D; ++d)
            sum[r][d] = V::load(sums + r * width + first + d * LANES);
    for (const Part* part = parts; part < parts + num_parts; ++part)
        for (int64_t j = 0; j < part->count; ++j) {
            TIEDLM_UNROLL for (int d = 0; d < D; ++d) {
                const int64_t at = j * values_stride + first + d * LANES;
                value[d] = D == 1 && rest < LANES ? V::load(part->values + at, rest)
                                                  : V::load(part->values + at);
                if (part->ahead != nullptr) ask_for(part->ahead + at);
            }
            TIEDLM_UNROLL for (int r = 0; r < R; ++r) {
                const typename V::Reg weight = V::set(part->weights[r * weights_stride + j]);
                TIEDLM_UNROLL for (int d = 0; d < D; ++d)
                    sum[r][d] = V::fma(weight, value[d], sum[r][d]);
            }
        }
    TIEDLM_UNROLL for (int r = 0; r < R; ++r)
        TIEDLM_UNROLL for (int d = 0; d < D; ++d)
            V::store(sums + r * width + first + d * LANES, sum[r][d]);
}

}  // namespace tiedlm
