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
constexpr int SECOND_LEVEL = 2;  // of caches, to __builtin_prefetch

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
    const Rounded inputs = job.inputs;  // a copy: what is written through it could change the job
    const CodeKind kind = job.weight.kind;
    const int64_t C = job.weight.width, B = job.weight.blocks();
    constexpr int64_t bytes = WIDE ? Q::WIDE_BYTES : Q::NARROW_BYTES;
    const int parts = BLOCK_OF_INPUTS / kind.group;
    for (int64_t n = rows.first; n < rows.last; ++n)
        for (int64_t b = 0; b < B; ++b) {
            const int64_t left = C - b * BLOCK_OF_INPUTS;
            const float* block = x + n * C + b * BLOCK_OF_INPUTS;
            float padded[BLOCK_OF_INPUTS];
            if (left < BLOCK_OF_INPUTS) {
                for (int64_t i = 0; i < BLOCK_OF_INPUTS; ++i) padded[i] = i < left ? block[i] : 0.0f;
                block = padded;
            }
            const int64_t place = inputs.place(n, b, B);
            RoundedBlock found = Q::template round<WIDE>(block, inputs.values + place * bytes);
            inputs.scales[place] = found.scale;
            if (parts == 1) found.sums[0] += found.sums[1];
            for (int p = 0; p < parts; ++p) {
                const float scaled = float(found.sums[p]) * found.scale;
                int32_t correction = -kind.zero * found.sums[p];
                if (kind.has_offset) std::memcpy(&correction, &scaled, 4);
                inputs.corrections[inputs.place(n, b * parts + p, B * parts)] = correction;
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

template <class V>
inline void write_tile(const QuantLinear& job, int64_t row, int64_t tile, const float* sums) {
    const int64_t num_outputs = job.weight.num_outputs, left = num_outputs - tile * TILE;
    const int count = int(left < TILE ? left : TILE);
    auto all = V::load(sums);
    if (job.bias != nullptr) all = V::add(all, V::load(job.bias + tile * TILE, count));
    V::store(job.out + row * num_outputs + tile * TILE, all, count);
}

// What all rows of one group of inputs meet: the codes of T tiles, and their scales.
template <class Q, class K, int T>
struct Group {
    const typename Q::template Unpacked<T>& codes;
    int part;  // of the block
    typename Q::V::Reg scale[T], offset[T];
};

// R rows of inputs against one group, onto `sums` (R,T,TILE).
template <class Q, class K, bool WIDE, int T, int R>
inline void add_group(const Group<Q, K, T>& group, const uint8_t* x, const float* by,
                      const int32_t* corrections, float* sums) {
    using V = typename Q::V;
    typename Q::Ints integers[R][T];
    Q::template dot<K, WIDE, T, R>(group.codes, group.part, x, corrections, integers);
    TIEDLM_UNROLL for (int r = 0; r < R; ++r) {
        const auto input_scale = V::set(by[r]);
        TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
            float* sum = sums + (r * T + t) * TILE;
            const auto term = V::mul(Q::to_float(integers[r][t]), input_scale);
            auto next = Q::fma(term, group.scale[t], V::load(sum));
            if constexpr (K::OFFSET) {
                float of_inputs;
                std::memcpy(&of_inputs, corrections + r, 4);
                next = Q::fma(V::set(of_inputs), group.offset[t], next);
            }
            V::store(sum, next);
        }
    }
}

// T tiles, side by side, over all inputs of some rows.
template <class Q, class K, bool WIDE, int T>
void pass(const QuantLinear& job, Range rows, int64_t tile, bool is_streaming) {
    const Codes& w = job.weight;
    const int64_t B = w.blocks(), tile_bytes = w.tile_bytes();
    const int64_t count = rows.last - rows.first;
    constexpr int64_t bytes = WIDE ? Q::WIDE_BYTES : Q::NARROW_BYTES;
    constexpr int ROWS = WIDE ? Q::WIDE_ROWS : Q::NARROW_ROWS;
    const uint8_t* at = w.data + tile * tile_bytes;
    const uint8_t *codes_at = at + w.codes(), *offsets_at = at + w.offsets();
    const uint8_t *multiples_at = at + w.multiples(), *of_offsets_at = at + w.offset_multiples();
    // Of the tiles that come next, as much as is read of these meanwhile: no further, or the first
    // of them would come too late.
    const int64_t step = is_streaming ? T * tile_bytes / B : 0;
    const uint8_t* ahead = at + T * tile_bytes;
    alignas(64) float sums[MAX_PASS_ROWS * T * TILE];
    for (int64_t i = 0; i < count * T * TILE; ++i) sums[i] = 0.0f;
    for (int64_t n = 0; n < count; ++n)  // or writing them would wait, row after row
        for (int t = 0; t < T; ++t)
            __builtin_prefetch(job.out + (rows.first + n) * w.num_outputs + (tile + t) * TILE, 1);
    for (int64_t b = 0; b < B; ++b) {
        for (int64_t i = 0; i < step; i += LINE)
            __builtin_prefetch(ahead + b * step + i, 0, SECOND_LEVEL);
        typename Q::template Unpacked<T> codes;
        TIEDLM_UNROLL for (int t = 0; t < T; ++t)
            Q::template unpack<K::BITS, T>(codes_at + t * tile_bytes + b * K::BITS * LINE, t, codes);
        TIEDLM_UNROLL for (int p = 0; p < K::PARTS; ++p) {
            const int64_t g = b * K::PARTS + p;
            Group<Q, K, T> group{codes, p, {}, {}};
            TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                const int64_t to = t * tile_bytes;
                group.scale[t] = scales_of<Q, K>(at + to, multiples_at + to, g);
                if constexpr (K::OFFSET)
                    group.offset[t] = scales_of<Q, K>(offsets_at + to, of_offsets_at + to, g);
            }
            const int64_t place = job.inputs.place(rows.first, b, B);
            const uint8_t* x = job.inputs.values + place * bytes;
            const float* by = job.inputs.scales + place;
            const int32_t* corrections =
                job.inputs.corrections + job.inputs.place(rows.first, g, B * K::PARTS);
            int64_t n = 0;
            for (; n + ROWS <= count; n += ROWS)
                add_group<Q, K, WIDE, T, ROWS>(group, x + n * bytes, by + n, corrections + n,
                                               sums + n * T * TILE);
            for (; n < count; ++n)
                add_group<Q, K, WIDE, T, 1>(group, x + n * bytes, by + n, corrections + n,
                                            sums + n * T * TILE);
        }
    }
    for (int64_t n = 0; n < count; ++n)
        for (int t = 0; t < T; ++t)
            write_tile<typename Q::V>(job, rows.first + n, tile + t, sums + (n * T + t) * TILE);
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
