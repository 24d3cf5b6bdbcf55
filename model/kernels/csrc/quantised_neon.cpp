// Quantised products for aarch64 processors with dot products of bytes: one sdot for four outputs,
// four inputs and a byte of each input.
//
// The pragma stands before every function but the first: see kernels_avx2.cpp.
#include "quantised.hpp"

#ifdef TIEDLM_DOT_PRODUCT
#ifdef __linux__
#include <sys/auxv.h>
#endif

namespace tiedlm {

bool has_dot_product() {
#if defined(__ARM_FEATURE_DOTPROD)
    return true;  // the compiler was told so
#elif defined(__linux__)
    constexpr unsigned long ASIMDDP = 1 << 20;  // asm/hwcap.h: HWCAP_ASIMDDP
    return (getauxval(AT_HWCAP) & ASIMDDP) != 0;
#else
    return false;
#endif
}

}  // namespace tiedlm

#ifndef __ARM_FEATURE_DOTPROD
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include "quantised_kernels.hpp"
#include "vector_neon.hpp"

namespace tiedlm {

namespace {

// The instruction multiplies signed bytes. Codes of 8 bits are made so by taking 128 off; `round`
// takes it off their zero too, so that products are the same. An input of 16 bits is two balanced
// bytes, 256 * high + low, and its product two products.
struct DotProducts {
    using V = Neon;
    struct Ints {
        int32x4_t part[4];
    };
    struct Line {
        int8x16_t part[4];  // four outputs each, four inputs of an output side by side
    };
    static constexpr int TILES = 1, WIDE_ROWS = 4, NARROW_ROWS = 4;  // 16 sums, 4 codes, 4 inputs
    static constexpr int64_t WIDE_BYTES = 64, NARROW_BYTES = 32;

    template <int T>
    struct Unpacked {
        Line line[T][QUADS];
    };

    template <bool WIDE>
    static inline RoundedBlock round(const float* x, uint8_t* out) {
        constexpr float widest = WIDE ? WIDEST : NARROWEST;
        int32x4_t bits = vdupq_n_s32(0);  // in the order of absolute values, NaN above infinity
        for (int i = 0; i < BLOCK_OF_INPUTS; i += 4)
            bits = vmaxq_s32(bits, vreinterpretq_s32_f32(vabsq_f32(vld1q_f32(x + i))));
        const int32_t highest = vmaxvq_s32(bits);
        float largest;
        std::memcpy(&largest, &highest, 4);
        const float by = inverse_for(largest, widest);
        RoundedBlock found{scale_for(largest, widest), {0, 0}};
        for (int half = 0; half < 2; ++half) {
            Ints integers;  // to nearest, ties to even; 0 for NaN, which infinity times 0 is
            for (int i = 0; i < 4; ++i)
                integers.part[i] =
                    vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + TILE * half + 4 * i), by));
            found.sums[half] = vaddvq_s32(vaddq_s32(vaddq_s32(integers.part[0], integers.part[1]),
                                                    vaddq_s32(integers.part[2], integers.part[3])));
            if constexpr (WIDE) {
                store(out + BLOCK_OF_INPUTS + TILE * half, integers);  // the low bytes as they are
                for (int32x4_t& four : integers.part)
                    four = vshrq_n_s32(vaddq_s32(four, vdupq_n_s32(128)), 8);
            }
            store(out + TILE * half, integers);
        }
        return found;
    }
    // The lowest byte of each
    static inline void store(uint8_t* out, const Ints& x) {
        const int16x8_t low = vcombine_s16(vmovn_s32(x.part[0]), vmovn_s32(x.part[1]));
        const int16x8_t high = vcombine_s16(vmovn_s32(x.part[2]), vmovn_s32(x.part[3]));
        vst1q_s8(reinterpret_cast<int8_t*>(out), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }

    static inline uint8x16_t masked(uint8x16_t x, int mask) {
        return vandq_u8(x, vdupq_n_u8(uint8_t(mask)));
    }
    static inline uint8x16_t shifted(uint8x16_t x, int right) {
        return vshlq_u8(x, vdupq_n_s8(int8_t(-right)));
    }

    // Line q's codes of outputs 4 * part and on
    template <int BITS>
    static inline int8x16_t codes_of(const uint8_t* p, int q, int part) {
        p += LINE / 4 * part;
        if constexpr (BITS == 8)
            return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + LINE * q), vdupq_n_u8(128)));
        uint8x16_t code = masked(shifted(vld1q_u8(p + LINE * (q / 2)), q % 2 * 4), 15);
        constexpr int MORE = BITS - 4;
        if constexpr (MORE > 0) {
            const uint8x16_t high = vld1q_u8(p + LINE * (4 + q * MORE / 8));
            const uint8x16_t more = masked(shifted(high, q * MORE % 8), (1 << MORE) - 1);
            code = vorrq_u8(code, vshlq_n_u8(more, 4));
        }
        return vreinterpretq_s8_u8(code);
    }

    template <int BITS, int T>
    static inline void unpack(const uint8_t* p, int t, Unpacked<T>& out) {
        TIEDLM_UNROLL for (int q = 0; q < QUADS; ++q)
            TIEDLM_UNROLL for (int i = 0; i < 4; ++i)
                out.line[t][q].part[i] = codes_of<BITS>(p, q, i);
    }

    // Quad LANE of 16 inputs of each row
    template <int LANE, int T, int R>
    static inline void add_quad(const Line& codes, int t, const int8x16_t (&inputs)[R],
                                Ints (&sum)[R][T]) {
        TIEDLM_UNROLL for (int r = 0; r < R; ++r)
            TIEDLM_UNROLL for (int i = 0; i < 4; ++i)
                sum[r][t].part[i] =
                    vdotq_laneq_s32(sum[r][t].part[i], codes.part[i], inputs[r], LANE);
    }

    // One byte of each input of a group; x: that of the first row
    template <class K, int T, int R>
    static inline void add_products(const Unpacked<T>& codes, int part, const uint8_t* x,
                                    int64_t bytes, Ints (&sum)[R][T]) {
        TIEDLM_UNROLL for (int i = 0; i < K::QUADS_A_PART; i += 4) {
            const int q = part * K::QUADS_A_PART + i;
            int8x16_t inputs[R];
            TIEDLM_UNROLL for (int r = 0; r < R; ++r)
                inputs[r] = vreinterpretq_s8_u8(vld1q_u8(x + r * bytes + 4 * q));
            TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                add_quad<0, T, R>(codes.line[t][q], t, inputs, sum);
                add_quad<1, T, R>(codes.line[t][q + 1], t, inputs, sum);
                add_quad<2, T, R>(codes.line[t][q + 2], t, inputs, sum);
                add_quad<3, T, R>(codes.line[t][q + 3], t, inputs, sum);
            }
        }
    }

    // The high bytes' products, times 256, then the low bytes' onto them
    template <class K, bool WIDE, int T, int R>
    static inline void dot(const Unpacked<T>& codes, int part, const uint8_t* x,
                           const int32_t* corrections, Ints (&sum)[R][T]) {
        constexpr int64_t bytes = WIDE ? WIDE_BYTES : NARROW_BYTES;
        each(sum, [](int32x4_t, int) { return vdupq_n_s32(0); });
        if constexpr (WIDE) {
            add_products<K, T, R>(codes, part, x, bytes, sum);
            each(sum, [](int32x4_t four, int) { return vshlq_n_s32(four, 8); });
        }
        add_products<K, T, R>(codes, part, WIDE ? x + BLOCK_OF_INPUTS : x, bytes, sum);
        if constexpr (!K::OFFSET)
            each(sum, [=](int32x4_t four, int r) {
                return vaddq_s32(four, vdupq_n_s32(corrections[r]));
            });
    }
    template <int T, int R, class F>
    static inline void each(Ints (&sum)[R][T], const F& next) {
        TIEDLM_UNROLL for (int r = 0; r < R; ++r)
            TIEDLM_UNROLL for (int t = 0; t < T; ++t)
                TIEDLM_UNROLL for (int i = 0; i < 4; ++i)
                    sum[r][t].part[i] = next(sum[r][t].part[i], r);
    }

    static inline Neon::Reg to_float(const Ints& x) {
        return V::each([&](int i) { return vcvtq_f32_s32(x.part[i]); });
    }
    static inline Neon::Reg from_half(const uint8_t* p) {
        return V::each([=](int i) {
            return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i)));
        });
    }
    static inline Neon::Reg from_bytes(const uint8_t* p) {
        const auto four = [=](int i) {
            const int16x8_t eight = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p + i / 2 * 8)));
            return vmovl_s16(i % 2 == 0 ? vget_low_s16(eight) : vget_high_s16(eight));
        };
        return V::each([&](int i) { return vcvtq_f32_s32(four(i)); });
    }
    static inline Neon::Reg fma(Neon::Reg a, Neon::Reg b, Neon::Reg c) { return V::fma(a, b, c); }
};

void round(const QuantLinear& job, const float* x, Range rows) {
    QuantLinear with_signed_codes = job;
    if (job.weight.kind.bits == 8) with_signed_codes.weight.kind.zero -= 128;
    round_inputs<DotProducts>(with_signed_codes, x, rows);
}

}  // namespace

const Quantised quantised_neon = {DotProducts::WIDE_BYTES, DotProducts::NARROW_BYTES, round,
                                  multiply_codes<DotProducts>};

}  // namespace tiedlm
#endif
