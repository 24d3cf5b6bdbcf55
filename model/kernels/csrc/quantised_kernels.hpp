// The loops of a quantised product, for any instruction set Q.
//
// Nothing of the standard library is instantiated here: see kernels_avx2.cpp.
#pragma once
#include <cstring>

#include "linear.hpp"
#include "quantised.hpp"

namespace tiedlm {

// Beyond it 16-bit inputs would need a third byte: 127 * 256 is the largest of two balanced ones.
constexpr float WIDEST = 32512.0f, NARROWEST = 127.0f;
constexpr float SMALLEST_INPUT = 1e-30f;  // of a block's largest; below, all count as zero
constexpr float LARGEST_INPUT = 3.402823466e38f;
constexpr int64_t CODES_AHEAD = 8 << 10;  // bytes

template <int B, int G, bool HAS_OFFSET, bool HAS_MULTIPLES>
struct KindOf {
    static constexpr int BITS = B, GROUP = G, PARTS = BLOCK_OF_INPUTS / G, QUADS_A_PART = G / 4;
    static constexpr bool OFFSET = HAS_OFFSET, MULTIPLES = HAS_MULTIPLES;
    static constexpr int GROUPS_A_SCALE = HAS_MULTIPLES ? 256 / G : 1;
};

// 32 inputs, rounded: how much an integer is worth, and the sums of both halves.
struct RoundedBlock {
    float scale;
    int32_t sums[2];
};

// Where an input is infinite or NaN so is `largest`, and the scale is NaN, so that outputs are.
inline float scale_for(float largest, float widest) {
    if (!(largest <= LARGEST_INPUT)) return __builtin_nanf("");
    return largest < SMALLEST_INPUT ? 0.0f : largest / widest;
}

inline float inverse_for(float largest, float widest) {
    return largest <= LARGEST_INPUT && largest >= SMALLEST_INPUT ? widest / largest : 0.0f;
}

// Absolute values in order are their bits in order, and NaN is above infinity.
inline float largest_of(const float* x) {
    int32_t largest = 0;
    for (int i = 0; i < BLOCK_OF_INPUTS; ++i) {
        int32_t bits;
        std::memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    float out;
    std::memcpy(&out, &largest, 4);
    return out;
}

// One at a time; `integers` as 32 bits.
inline RoundedBlock round_plainly(const float* x, float widest, int32_t* integers) {
    const float largest = largest_of(x), by = inverse_for(largest, widest);
    RoundedBlock out{scale_for(largest, widest), {0, 0}};
    constexpr float SHIFT = 12582912.0f;  // 1.5 * 2^23: its last bit is worth one
    for (int i = 0; i < BLOCK_OF_INPUTS; ++i) {
        integers[i] = by == 0.0f ? 0 : int32_t((x[i] * by + SHIFT) - SHIFT);
        out.sums[i / (BLOCK_OF_INPUTS / 2)] += integers[i];
    }
    return out;
}

template <class Q, bool WIDE>
void round_rows(const QuantLinear& job, const float* x, Range rows) {
    const Codes& w = job.weight;
    const int64_t N = job.inputs.num_rows, C = w.width, B = w.blocks();
    constexpr int64_t bytes = WIDE ? Q::WIDE_BYTES : Q::NARROW_BYTES;
    const int parts = BLOCK_OF_INPUTS / w.kind.group;
    for (int64_t n = rows.first; n < rows.last; ++n)
        for (int64_t b = 0; b < B; ++b) {
            const int64_t left = C - b * BLOCK_OF_INPUTS;
            const float* block = x + n * C + b * BLOCK_OF_INPUTS;
            float padded[BLOCK_OF_INPUTS] = {};
            if (left < BLOCK_OF_INPUTS) {
                for (int64_t i = 0; i < left; ++i) padded[i] = block[i];
                block = padded;
            }
            RoundedBlock found =
                Q::template round<WIDE>(block, job.inputs.values + (b * N + n) * bytes);
            job.inputs.scales[b * N + n] = found.scale;
            if (parts == 1) found.sums[0] += found.sums[1];
            for (int p = 0; p < parts; ++p) {
                const float scaled = float(found.sums[p]) * found.scale;
                int32_t correction = -w.kind.zero * found.sums[p];
                if (w.kind.has_offset) std::memcpy(&correction, &scaled, 4);
                job.inputs.corrections[(b * parts + p) * N + n] = correction;
            }
        }
}

// The scales of one group of a tile, 16 at a time; the offsets lie as they do, further on.
template <class Q, class K>
inline typename Q::V::Reg scales_of(const uint8_t* scales, const uint8_t* multiples, int64_t group) {
    const auto shared = Q::from_half(scales + group / K::GROUPS_A_SCALE * 2 * TILE);
    if constexpr (!K::MULTIPLES) return shared;
    return Q::V::mul(shared, Q::from_bytes(multiples + group * TILE));
}

// T tiles, side by side, over all inputs of some rows.
template <class Q, class K, bool WIDE, int T>
void pass(const QuantLinear& job, Range rows, int64_t tile, bool is_streaming) {
    using V = typename Q::V;
    using Reg = typename V::Reg;
    const Codes& w = job.weight;
    const int64_t N = job.inputs.num_rows, B = w.blocks(), tile_bytes = w.tile_bytes();
    const int64_t codes_at = w.codes(), offsets_at = w.offsets();
    const int64_t multiples_at = w.multiples(), offset_multiples_at = w.offset_multiples();
    constexpr int64_t bytes = WIDE ? Q::WIDE_BYTES : Q::NARROW_BYTES;
    const uint8_t* at = w.data + tile * tile_bytes;
    const int64_t ahead = is_streaming ? T * tile_bytes / B : 0;
    alignas(64) float sums[MAX_PASS_ROWS * T * TILE];
    for (int64_t i = 0; i < (rows.last - rows.first) * T * TILE; ++i) sums[i] = 0.0f;
    for (int64_t b = 0; b < B; ++b) {
        for (int64_t i = 0; i < ahead; i += LINE)
            __builtin_prefetch(at + b * ahead + CODES_AHEAD + i);
        typename Q::template Unpacked<T> codes;
        TIEDLM_UNROLL for (int t = 0; t < T; ++t)
            Q::template unpack<K::BITS, T>(at + t * tile_bytes + codes_at + b * K::BITS * LINE, t, codes);
        TIEDLM_UNROLL for (int p = 0; p < K::PARTS; ++p) {
            const int64_t group = b * K::PARTS + p;
            Reg scale[T], offset[T];
            TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                const uint8_t* tile_at = at + t * tile_bytes;
                scale[t] = scales_of<Q, K>(tile_at, tile_at + multiples_at, group);
                if constexpr (K::OFFSET)
                    offset[t] = scales_of<Q, K>(tile_at + offsets_at, tile_at + offset_multiples_at, group);
            }
            const uint8_t* x = job.inputs.values + (b * N + rows.first) * bytes;
            const float* by = job.inputs.scales + b * N;
            const int32_t* corrections = job.inputs.corrections + group * N;
            float* sum = sums;
            for (int64_t n = rows.first; n < rows.last; ++n, x += bytes, sum += T * TILE) {
                typename Q::Ints integers[T];
                Q::template dot<WIDE, T, K::QUADS_A_PART>(codes, p, x, K::OFFSET ? 0 : corrections[n], integers);
                const Reg input_scale = V::set(by[n]);
                TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                    const Reg term = V::mul(Q::to_float(integers[t]), input_scale);
                    Reg next = Q::fma(term, scale[t], V::load(sum + t * TILE));
                    if constexpr (K::OFFSET) {
                        float of_inputs;
                        std::memcpy(&of_inputs, corrections + n, 4);
                        next = Q::fma(V::set(of_inputs), offset[t], next);
                    }
                    V::store(sum + t * TILE, next);
                }
            }
        }
    }
    for (int64_t n = rows.first; n < rows.last; ++n)
        for (int t = 0; t < T; ++t) {
            const int64_t o = (tile + t) * TILE, left = w.num_outputs - o;
            const float* sum = sums + ((n - rows.first) * T + t) * TILE;
            float* out = job.out + n * w.num_outputs + o;
            const int count = int(left < TILE ? left : TILE);
            const Reg all = V::load(sum);
            const Reg biased = job.bias == nullptr ? all : V::add(all, V::load(job.bias + o, count));
            V::store(out, biased, count);
        }
}

template <class Q, class K, bool WIDE>
void multiply_tiles(const QuantLinear& job, Range rows, Range tiles, bool is_streaming) {
    int64_t tile = tiles.first;
    for (; tile + Q::TILES <= tiles.last; tile += Q::TILES)
        pass<Q, K, WIDE, Q::TILES>(job, rows, tile, is_streaming);
    for (; tile < tiles.last; ++tile) pass<Q, K, WIDE, 1>(job, rows, tile, is_streaming);
}

template <class Q, bool WIDE>
void multiply_kind(const QuantLinear& job, Range rows, Range tiles, bool is_streaming) {
    const CodeKind& kind = job.weight.kind;
    if (kind.bits == 8)
        multiply_tiles<Q, KindOf<8, 32, false, false>, WIDE>(job, rows, tiles, is_streaming);
    else if (kind.bits == 6)
        multiply_tiles<Q, KindOf<6, 16, false, true>, WIDE>(job, rows, tiles, is_streaming);
    else if (kind.groups_per_scale > 1)
        kind.bits == 4
            ? multiply_tiles<Q, KindOf<4, 32, true, true>, WIDE>(job, rows, tiles, is_streaming)
            : multiply_tiles<Q, KindOf<5, 32, true, true>, WIDE>(job, rows, tiles, is_streaming);
    else if (kind.has_offset)
        kind.bits == 4
            ? multiply_tiles<Q, KindOf<4, 32, true, false>, WIDE>(job, rows, tiles, is_streaming)
            : multiply_tiles<Q, KindOf<5, 32, true, false>, WIDE>(job, rows, tiles, is_streaming);
    else
        kind.bits == 4
            ? multiply_tiles<Q, KindOf<4, 32, false, false>, WIDE>(job, rows, tiles, is_streaming)
            : multiply_tiles<Q, KindOf<5, 32, false, false>, WIDE>(job, rows, tiles, is_streaming);
}

template <class Q>
void round_inputs(const QuantLinear& job, const float* x, Range rows) {
    job.is_wide ? round_rows<Q, true>(job, x, rows) : round_rows<Q, false>(job, x, rows);
}

template <class Q>
void multiply_codes(const QuantLinear& job, Range rows, Range tiles, bool is_streaming) {
    job.is_wide ? multiply_kind<Q, true>(job, rows, tiles, is_streaming)
                : multiply_kind<Q, false>(job, rows, tiles, is_streaming);
}

template <class Q>
constexpr Quantised QUANTISED = {Q::WIDE_BYTES, Q::NARROW_BYTES, round_inputs<Q>, multiply_codes<Q>};

}  // namespace tiedlm
