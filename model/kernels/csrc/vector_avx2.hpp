// 16 lanes of float in two AVX2 registers, with fused multiply-add.
#pragma once
#include <immintrin.h>

#include "jobs.hpp"

namespace tiedlm {

struct Avx2 {
    static constexpr int ROWS = 3, OUTPUTS = 2;  // 6 sums of two registers each: 12 of 16

    struct Reg {
        __m256 low, high;
    };
    struct Doubles {
        __m256d part[4];
    };

    // All bits set in the first n of 16 lanes; `half` chooses 8 of them.
    static inline __m256i first(int n, int half) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8 * half), lane);
    }

    static inline Reg zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static inline Reg set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static inline Reg load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static inline Reg load(const float* p, int n) {
        return {_mm256_maskload_ps(p, first(n, 0)), _mm256_maskload_ps(p + 8, first(n, 1))};
    }
    static inline __m256 widen(__m128i halves) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
    }
    static inline Reg load(const uint16_t* p) {
        return {widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
    }
    static inline Reg load(const uint16_t* p, int n) {
        uint16_t padded[LANES] = {};
        for (int i = 0; i < n; ++i) padded[i] = p[i];
        return load(padded);
    }
    static inline void store(float* p, Reg a) {
        _mm256_storeu_ps(p, a.low);
        _mm256_storeu_ps(p + 8, a.high);
    }
    static inline void store(float* p, Reg a, int n) {
        _mm256_maskstore_ps(p, first(n, 0), a.low);
        _mm256_maskstore_ps(p + 8, first(n, 1), a.high);
    }
    static inline Reg fma(Reg a, Reg b, Reg c) {
        return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
    }
    static inline Reg add(Reg a, Reg b) {
        return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
    }
    static inline Reg sub(Reg a, Reg b) {
        return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
    }
    static inline Reg mul(Reg a, Reg b) {
        return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
    }
    static inline Reg div(Reg a, Reg b) {
        return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
    }
    static inline Reg negative_abs(Reg a) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_or_ps(a.low, sign), _mm256_or_ps(a.high, sign)};
    }
    static inline Reg max(Reg a, Reg b) {
        return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
    }
    static inline Reg round(Reg a) {
        return {_mm256_round_ps(a.low, 8), _mm256_round_ps(a.high, 8)};  // nearest, no exception
    }
    static inline __m256 power(__m256 n) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    static inline Reg scale_by_power(Reg x, Reg n) { return mul(x, {power(n.low), power(n.high)}); }
    // A bit a lane where a < b.
    static inline uint32_t less(Reg a, Reg b) {
        const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ));
        return uint32_t(low | _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)) << 8);
    }
    static inline Reg where_less(Reg a, Reg b, Reg yes, Reg no) {
        const __m256 low = _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ);
        const __m256 high = _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ);
        return {_mm256_blendv_ps(no.low, yes.low, low), _mm256_blendv_ps(no.high, yes.high, high)};
    }

    // Lanes are added 8 apart, then 4, 2, 1, as in the other vector files.
    static inline float sum(Reg a) {
        const __m256 eight = _mm256_add_ps(a.low, a.high);
        __m128 all = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        all = _mm_add_ps(all, _mm_movehl_ps(all, all));
        return _mm_cvtss_f32(_mm_add_ss(all, _mm_movehdup_ps(all)));
    }
    template <int O>
    static inline void sums(const Reg (&a)[O], float* out) {
        for (int o = 0; o < O; ++o) out[o] = sum(a[o]);
    }
    static inline float largest(Reg a) {
        const __m256 eight = _mm256_max_ps(a.low, a.high);
        __m128 all = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        all = _mm_max_ps(all, _mm_movehl_ps(all, all));
        return _mm_cvtss_f32(_mm_max_ss(all, _mm_movehdup_ps(all)));
    }

    static inline Doubles zero_doubles() {
        const __m256d zero = _mm256_setzero_pd();
        return {{zero, zero, zero, zero}};
    }
    static inline Doubles accumulate(Doubles total, Reg a) {
        const __m128 quarter[4] = {
            _mm256_castps256_ps128(a.low), _mm256_extractf128_ps(a.low, 1),
            _mm256_castps256_ps128(a.high), _mm256_extractf128_ps(a.high, 1)};
        Doubles out;
        for (int i = 0; i < 4; ++i)
            out.part[i] = _mm256_add_pd(total.part[i], _mm256_cvtps_pd(quarter[i]));
        return out;
    }
    static inline void store(double* p, Doubles a) {
        for (int i = 0; i < 4; ++i) _mm256_storeu_pd(p + 4 * i, a.part[i]);
    }
};

}  // namespace tiedlm
