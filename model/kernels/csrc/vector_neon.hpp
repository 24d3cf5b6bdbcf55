// 16 lanes of float in four NEON registers, with fused multiply-add.
#pragma once
#include <arm_neon.h>

#include "jobs.hpp"

namespace tiedlm {

struct Neon {
    static constexpr int ROWS = 3, OUTPUTS = 2;  // 6 sums of four registers each: 24 of 32

    struct Reg {
        float32x4_t part[4];
    };
    struct Doubles {
        float64x2_t part[8];
    };

    template <class F>
    static inline Reg each(const F& f) {
        return {{f(0), f(1), f(2), f(3)}};
    }

    static inline Reg zero() { return set(0.0f); }
    static inline Reg set(float x) {
        const float32x4_t all = vdupq_n_f32(x);
        return {{all, all, all, all}};
    }
    static inline Reg load(const float* p) {
        return each([=](int i) { return vld1q_f32(p + 4 * i); });
    }
    static inline Reg load(const uint16_t* p) {
        return each([=](int i) {
            return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
        });
    }
    template <class T>
    static inline Reg load(const T* p, int n) {
        T padded[LANES] = {};
        for (int i = 0; i < n; ++i) padded[i] = p[i];
        return load(padded);
    }
    static inline void store(float* p, Reg a) {
        for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.part[i]);
    }
    static inline void store(float* p, Reg a, int n) {
        float all[LANES];
        store(all, a);
        for (int i = 0; i < n; ++i) p[i] = all[i];
    }
    static inline Reg fma(Reg a, Reg b, Reg c) {
        return each([&](int i) { return vfmaq_f32(c.part[i], a.part[i], b.part[i]); });
    }
    static inline Reg add(Reg a, Reg b) {
        return each([&](int i) { return vaddq_f32(a.part[i], b.part[i]); });
    }
    static inline Reg sub(Reg a, Reg b) {
        return each([&](int i) { return vsubq_f32(a.part[i], b.part[i]); });
    }
    static inline Reg mul(Reg a, Reg b) {
        return each([&](int i) { return vmulq_f32(a.part[i], b.part[i]); });
    }
    static inline Reg div(Reg a, Reg b) {
        return each([&](int i) { return vdivq_f32(a.part[i], b.part[i]); });
    }
    static inline Reg negative_abs(Reg a) {
        return each([&](int i) { return vnegq_f32(vabsq_f32(a.part[i])); });
    }
    // b where either is NaN or both are zeros, as the x86 instruction has it.
    static inline Reg max(Reg a, Reg b) { return where_less(b, a, a, b); }
    static inline Reg round(Reg a) {
        return each([&](int i) { return vrndnq_f32(a.part[i]); });
    }
    static inline Reg scale_by_power(Reg x, Reg n) {  // NaN becomes the integer 0
        return each([&](int i) {
            const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n.part[i]), vdupq_n_s32(127));
            return vmulq_f32(x.part[i], vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
        });
    }
    // A bit a lane where a < b.
    static inline uint32_t less(Reg a, Reg b) {
        const auto eight = [&](int i) {
            return vmovn_u16(vcombine_u16(vmovn_u32(vcltq_f32(a.part[i], b.part[i])),
                                          vmovn_u32(vcltq_f32(a.part[i + 1], b.part[i + 1]))));
        };
        const uint8x8_t places = vcreate_u8(0x8040201008040201u);
        const uint32_t low = vaddv_u8(vand_u8(eight(0), places));
        return low | uint32_t(vaddv_u8(vand_u8(eight(2), places))) << 8;
    }
    static inline Reg where_less(Reg a, Reg b, Reg yes, Reg no) {
        return each([&](int i) {
            return vbslq_f32(vcltq_f32(a.part[i], b.part[i]), yes.part[i], no.part[i]);
        });
    }

    // Lanes are added 8 apart, then 4, 2, 1, as in the other vector files.
    static inline float32x4_t fold(Reg a) {
        return vaddq_f32(vaddq_f32(a.part[0], a.part[2]), vaddq_f32(a.part[1], a.part[3]));
    }
    static inline float sum(Reg a) {
        const float32x4_t four = fold(a);
        return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
    }
    template <int O>
    static inline void sums(const Reg (&a)[O], float* out) {
        for (int o = 0; o < O; ++o) out[o] = sum(a[o]);
    }
    // The instruction passes over NaN and takes +0 for larger than -0: where either may show, lanes
    // are compared in turn.
    static inline float largest(Reg a) {
        const float32x4_t four = vmaxnmq_f32(vmaxnmq_f32(a.part[0], a.part[1]),
                                             vmaxnmq_f32(a.part[2], a.part[3]));
        const float out = vmaxnmvq_f32(four), first = vgetq_lane_f32(a.part[0], 0);
        const bool is_plain = out != 0.0f && out == out && first == first;
        return is_plain ? out : largest_in_turn(a);
    }
    static inline float largest_in_turn(Reg a) {
        float lanes[LANES];
        store(lanes, a);
        float out = lanes[0];
        for (const float lane : lanes) out = lane > out ? lane : out;
        return out;
    }

    static inline Doubles zero_doubles() { return Doubles{}; }
    static inline Doubles accumulate(Doubles total, Reg a) {
        Doubles out;
        for (int i = 0; i < 4; ++i) {
            const float64x2_t low = vcvt_f64_f32(vget_low_f32(a.part[i]));
            out.part[2 * i] = vaddq_f64(total.part[2 * i], low);
            out.part[2 * i + 1] = vaddq_f64(total.part[2 * i + 1], vcvt_high_f64_f32(a.part[i]));
        }
        return out;
    }
    static inline void store(double* p, Doubles a) {
        for (int i = 0; i < 8; ++i) vst1q_f64(p + 2 * i, a.part[i]);
    }
};

}  // namespace tiedlm
