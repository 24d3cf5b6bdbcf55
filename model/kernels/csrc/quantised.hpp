// Matrices of codes in groups that share a scale, and what multiplies by them.
//
// weights/quant.py defines the bytes: tiles of 16 outputs, in each all scales (float16), offsets,
// int8 multiples of both, then the codes of 32 inputs after those of 32 others. Inputs are rounded
// to integers, too, 32 of a row by one scale, so that a group's sum is exact in any order. Then
// comes one order for all rows, tiles, threads and instruction sets: groups ascending, each
//     sum = fma(float(integer sum) * input scale, weight scale, sum)
//     sum = fma(float(sum of inputs) * input scale, offset, sum)    where there are offsets
// and the bias last.
#pragma once
#include <cstdint>

#include "jobs.hpp"

namespace tiedlm {

constexpr int TILE = 16;    // outputs
constexpr int BLOCK_OF_INPUTS = 32;
constexpr int QUADS = 8;    // of a block's inputs
constexpr int64_t LINE = 64;  // bytes: 16 outputs by 4 inputs
constexpr int64_t MAX_PASS_ROWS = 64;  // whose sums a pass keeps in the first-level cache

// weights/quant.py: Kind
struct CodeKind {
    int32_t bits, zero, has_offset, group, groups_per_scale;
};

struct Codes {
    const uint8_t* data;
    CodeKind kind;
    int64_t num_outputs, width;

    int64_t blocks() const { return (width + BLOCK_OF_INPUTS - 1) / BLOCK_OF_INPUTS; }
    int64_t tiles() const { return (num_outputs + TILE - 1) / TILE; }
    int64_t groups() const { return blocks() * (BLOCK_OF_INPUTS / kind.group); }
    int64_t scale_bytes() const {
        const int64_t scales = (groups() + kind.groups_per_scale - 1) / kind.groups_per_scale;
        return round_up(2 * TILE * scales, LINE);
    }
    int64_t multiple_bytes() const {
        return kind.groups_per_scale > 1 ? round_up(TILE * groups(), LINE) : 0;
    }
    int64_t offsets() const { return scale_bytes(); }
    int64_t multiples() const { return scale_bytes() * (kind.has_offset ? 2 : 1); }
    int64_t offset_multiples() const { return multiples() + multiple_bytes(); }
    int64_t codes() const { return multiples() + multiple_bytes() * (kind.has_offset ? 2 : 1); }
    int64_t tile_bytes() const { return codes() + blocks() * kind.bits * LINE; }
};

// Byte `at` of a block's q-th line of codes.
static inline int code_of(int bits, const uint8_t* block, int q, int at) {
    if (bits == 8) return block[LINE * q + at];
    const int low = block[LINE * (q / 2) + at] >> (q % 2 * 4) & 15, more = bits - 4;
    if (more == 0) return low;
    const int high = block[LINE * (4 + q * more / 8) + at] >> (q * more % 8);
    return low | (high & ((1 << more) - 1)) << 4;
}

// N rows rounded, in stripes of MAX_PASS_ROWS, the last of what is left: S rows. In each, block by
// block: all its rows' first 32 inputs, then all its rows' next 32. So a pass reads a stripe from
// one end to the other, whatever N.
struct Rounded {
    uint8_t* values;      // (B,S,Quantised::wide_bytes or narrow_bytes), stripe after stripe
    float* scales;        // (B,S)
    int32_t* corrections;  // (G,S): -zero * sum of a group's inputs; where there are offsets, the
                           // bits of the float that is the sum times the scale
    int64_t num_rows;

    // Where `row` has its `block` of `blocks`, or its group of groups
    int64_t place(int64_t row, int64_t block, int64_t blocks) const {
        const int64_t first = row / MAX_PASS_ROWS * MAX_PASS_ROWS, left = num_rows - first;
        const int64_t stripe = left < MAX_PASS_ROWS ? left : MAX_PASS_ROWS;
        return first * blocks + block * stripe + row - first;
    }
};

struct QuantLinear {
    Codes weight;
    Rounded inputs;
    const float* bias;  // (O,) or null
    float* out;         // (N,O)
    bool is_wide;       // inputs of 16 bits, not of 8
};

// What an instruction set fills in. Layouts of Rounded::values are its own.
struct Quantised {
    int64_t wide_bytes, narrow_bytes;  // of 32 rounded inputs
    // x (N,C): rows [first, last) of it
    void (*round)(const QuantLinear&, const float* x, Range rows);
    // rows: of one stripe. is_streaming: weights come from memory, and are asked for ahead
    void (*multiply)(const QuantLinear&, Range rows, Range tiles, bool is_streaming);
};

extern const Quantised quantised_portable;
#ifdef TIEDLM_X86
extern const Quantised quantised_avx2, quantised_vnni;
#endif
#ifdef TIEDLM_DOT_PRODUCT
extern const Quantised quantised_neon;
bool has_dot_product();  // this processor, for bytes
#endif

}  // namespace tiedlm
