// 16 lanes of float as the compiler vectorises them for whatever it is told to compile for.
#pragma once
#include <cstdint>
#include <cstring>

#include "jobs.hpp"

namespace tiedlm {

struct Portable {
    static constexpr int ROWS = 2, OUTPUTS = 2;

    struct Reg {
        float lane[LANES];
    };
    struct Doubles {
        double lane[LANES];
    };

    template <class F>
    static inline Reg each(F f) {
        Reg out;
        for (int i = 0; i < LANES; ++i) out.lane[i] = f(i);
        return out;
    }
    // Without a fused multiply-add in hardware, two roundings are taken: the library's call is a
    // hundred times as slow.
    static inline float fma1(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
        return __builtin_fmaf(a, b, c);
#else
        return a * b + c;
#endif
    }
    static inline Reg zero() { return each([](int) { return 0.0f; }); }
    static inline Reg set(float x) { return each([=](int) { return x; }); }
    static inline Reg load(const float* p) { return each([=](int i) { return p[i]; }); }
    static inline Reg load(const float* p, int n) {
        return each([=](int i) { return i < n ? p[i] : 0.0f; });
    }
    static inline float widen(uint16_t x) {
        const uint32_t bits = uint32_t(x) << 16;
        float out;
        std::memcpy(&out, &bits, 4);
        return out;
    }
    static inline Reg load(const uint16_t* p) { return each([=](int i) { return widen(p[i]); }); }
    static inline Reg load(const uint16_t* p, int n) {
        return each([=](int i) { return i < n ? widen(p[i]) : 0.0f; });
    }
    static inline void store(float* p, const Reg& a) { std::memcpy(p, a.lane, sizeof a.lane); }
    static inline void store(float* p, const Reg& a, int n) { std::memcpy(p, a.lane, 4 * n); }
    static inline Reg fma(const Reg& a, const Reg& b, const Reg& c) {
        return each([&](int i) { return fma1(a.lane[i], b.lane[i], c.lane[i]); });
    }
    static inline Reg add(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static inline Reg sub(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    static inline Reg mul(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static inline Reg div(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.lane[i] / b.lane[i]; });
    }
    static inline Reg negative_abs(const Reg& a) {
        return each([&](int i) { return -__builtin_fabsf(a.lane[i]); });
    }
    // b where either is NaN, as the x86 instruction has it.
    static inline Reg max(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static inline Reg round(const Reg& a) {
        constexpr float SHIFT = 12582912.0f;  // 1.5 * 2^23: its last bit is worth one
        return each([&](int i) { return (a.lane[i] + SHIFT) - SHIFT; });
    }
    // x * 2^n for integral n in [-126, 0] and x in [0.5, 2]
    static inline Reg scale_by_power(const Reg& x, const Reg& n) {
        return each([&](int i) {
            const float clean = n.lane[i] == n.lane[i] ? n.lane[i] : 0.0f;
            const int32_t bits = (int32_t(clean) + 127) << 23;
            float power;
            std::memcpy(&power, &bits, 4);
            return x.lane[i] * power;
        });
    }
    // A bit a lane where a < b.
    static inline uint32_t less(const Reg& a, const Reg& b) {
        uint32_t out = 0;
        for (int i = 0; i < LANES; ++i) out |= uint32_t(a.lane[i] < b.lane[i]) << i;
        return out;
    }
    // `yes` in the lanes where a < b
    static inline Reg where_less(const Reg& a, const Reg& b, const Reg& yes, const Reg& no) {
        return each([&](int i) { return a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i]; });
    }
    static inline float sum(const Reg& a) {
        float part[LANES];
        std::memcpy(part, a.lane, sizeof part);
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) part[i] += part[i + half];
        return part[0];
    }
    template <int O>
    static inline void sums(const Reg (&a)[O], float* out) {
        for (int o = 0; o < O; ++o) out[o] = sum(a[o]);
    }
    static inline float largest(const Reg& a) {
        float out = a.lane[0];
        for (int i = 1; i < LANES; ++i) out = a.lane[i] > out ? a.lane[i] : out;
        return out;
    }
    static inline Doubles zero_doubles() { return Doubles{}; }
    static inline Doubles accumulate(const Doubles& total, const Reg& a) {
        Doubles out;
        for (int i = 0; i < LANES; ++i) out.lane[i] = total.lane[i] + double(a.lane[i]);
        return out;
    }
    static inline void store(double* p, const Doubles& a) { std::memcpy(p, a.lane, sizeof a.lane); }
};

}  // namespace tiedlm
