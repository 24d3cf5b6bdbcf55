// x (N,C) times weight (O,C) transposed; its bits depend on neither N nor the tile nor the thread.
//
// An output is the sum over ascending k in 16 lanes, lane = k modulo 16, one fused multiply-add a
// step, the last step padded with zeros; then one fixed tree over the lanes; then the bias. A tile
// of rows and outputs only decides which such sums advance together.
#pragma once
#include "jobs.hpp"

// Sums must become registers before the optimiser looks: loops over them are unrolled at once.
#define TIEDLM_UNROLL _Pragma("GCC unroll 8")

namespace tiedlm {

constexpr int64_t CACHED_ROWS_BYTES = 40 << 10;  // of x: what stays in a first-level cache

// A tile's rows of w lie behind one another and are read side by side, a pattern in which the
// processor's own prefetcher finds no stream. So what lies behind the tile is asked for in order.
constexpr int64_t WEIGHTS_AHEAD = 8 << 10;  // bytes

// R rows of x times O rows of w -> out[r * out_stride + o], without bias. AHEAD: bytes, or 0 where
// w's rows do not lie behind one another.
template <class V, class W, int R, int O, int64_t AHEAD>
inline void dot_tile(const float* x, int64_t x_stride, const W* w, int64_t w_stride, int64_t width,
                     float* out, int64_t out_stride) {
    typename V::Reg sum[R][O], b[O];
    TIEDLM_UNROLL for (int r = 0; r < R; ++r)
        TIEDLM_UNROLL for (int o = 0; o < O; ++o) sum[r][o] = V::zero();
    int64_t k = 0;
    for (; k + LANES <= width; k += LANES) {
        for (int64_t i = 0; i < (AHEAD > 0 ? O * LANES * int64_t(sizeof(W)) : 0); i += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(w + k * O) + AHEAD + i);
        TIEDLM_UNROLL for (int o = 0; o < O; ++o) b[o] = V::load(w + o * w_stride + k);
        TIEDLM_UNROLL for (int r = 0; r < R; ++r) {
            const typename V::Reg a = V::load(x + r * x_stride + k);
            TIEDLM_UNROLL for (int o = 0; o < O; ++o) sum[r][o] = V::fma(a, b[o], sum[r][o]);
        }
    }
    if (k < width) {
        const int rest = int(width - k);
        TIEDLM_UNROLL for (int o = 0; o < O; ++o) b[o] = V::load(w + o * w_stride + k, rest);
        TIEDLM_UNROLL for (int r = 0; r < R; ++r) {
            const typename V::Reg a = V::load(x + r * x_stride + k, rest);
            TIEDLM_UNROLL for (int o = 0; o < O; ++o) sum[r][o] = V::fma(a, b[o], sum[r][o]);
        }
    }
    TIEDLM_UNROLL for (int r = 0; r < R; ++r) V::sums(sum[r], out + r * out_stride);
}

// R rows times any number of w's rows
template <class V, class W, int R, int64_t AHEAD = 0>
inline void dot_rows(const float* x, int64_t x_stride, const W* w, int64_t w_stride, int64_t width,
                     int64_t num_outputs, float* out, int64_t out_stride) {
    int64_t o = 0;
    for (; o + V::OUTPUTS <= num_outputs; o += V::OUTPUTS)
        dot_tile<V, W, R, V::OUTPUTS, AHEAD>(x, x_stride, w + o * w_stride, w_stride, width,
                                             out + o, out_stride);
    for (; o < num_outputs; ++o)
        dot_tile<V, W, R, 1, AHEAD>(x, x_stride, w + o * w_stride, w_stride, width, out + o,
                                    out_stride);
}

// The tile's number of rows is chosen at run time: R or fewer.
template <class V, class W, int R>
inline void dot_any(int64_t num_rows, const float* x, int64_t x_stride, const W* w,
                    int64_t w_stride, int64_t width, int64_t num_outputs, float* out,
                    int64_t out_stride) {
    if constexpr (R > 1) {
        if (num_rows < R) {
            dot_any<V, W, R - 1>(num_rows, x, x_stride, w, w_stride, width, num_outputs, out,
                                 out_stride);
            return;
        }
    }
    dot_rows<V, W, R, WEIGHTS_AHEAD>(x, x_stride, w, w_stride, width, num_outputs, out, out_stride);
}

template <class V, class W>
inline void multiply(const Linear& job, Range rows, Range outputs) {
    const auto* weight = static_cast<const W*>(job.weight);
    const int64_t C = job.width, O = job.num_outputs;
    // Few rows stay in the first-level cache while each weight is read once; of many, a tile stays
    // there while the piece's weights, which fit the second-level cache, pass.
    const bool few = (rows.last - rows.first) * C * int64_t(sizeof(float)) <= CACHED_ROWS_BYTES;
    const int64_t step = few ? V::OUTPUTS : outputs.last - outputs.first;
    for (int64_t o = outputs.first; o < outputs.last; o += step) {
        const int64_t count = o + step < outputs.last ? step : outputs.last - o;
        for (int64_t n = rows.first; n < rows.last; n += V::ROWS) {
            const int64_t left = rows.last - n;
            dot_any<V, W, V::ROWS>(left < V::ROWS ? left : V::ROWS, job.x + n * C, C,
                                   weight + o * C, C, C, count, job.out + n * O + o, O);
        }
    }
    if (job.bias == nullptr) return;
    for (int64_t n = rows.first; n < rows.last; ++n)
        for (int64_t o = outputs.first; o < outputs.last; ++o) job.out[n * O + o] += job.bias[o];
}

template <class V>
void linear(Matrix matrix, const Linear& job, Range rows, Range outputs) {
    if (matrix == Matrix::FLOAT32)
        multiply<V, float>(job, rows, outputs);
    else
        multiply<V, uint16_t>(job, rows, outputs);
}

}  // namespace tiedlm
