// 16 lanes of float in one AVX-512 register.
#pragma once
#include <immintrin.h>

#include "jobs.hpp"

namespace tiedlm {

struct Avx512 {
    static constexpr int ROWS = 6, OUTPUTS = 4;  // 24 sums, 4 weights and an input: 29 of 32

    using Reg = __m512;
    struct Doubles {
        __m512d low, high;
    };

    static inline __mmask16 first(int n) { return __mmask16((1u << n) - 1); }

    static inline Reg zero() { return _mm512_setzero_ps(); }
    static inline Reg set(float x) { return _mm512_set1_ps(x); }
    static inline Reg load(const float* p) { return _mm512_loadu_ps(p); }
    static inline Reg load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
    static inline Reg widen(__m256i halves) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
    static inline Reg load(const uint16_t* p) {
        return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static inline Reg load(const uint16_t* p, int n) {
        uint16_t padded[LANES] = {};
        for (int i = 0; i < n; ++i) padded[i] = p[i];
        return load(padded);
    }
    static inline void store(float* p, Reg a) { _mm512_storeu_ps(p, a); }
    static inline void store(float* p, Reg a, int n) { _mm512_mask_storeu_ps(p, first(n), a); }
    static inline Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
    static inline Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static inline Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
    static inline Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
    static inline Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
    static inline Reg negative_abs(Reg a) {
        return _mm512_castsi512_ps(
            _mm512_or_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(int(0x80000000u))));
    }
    static inline Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
    static inline Reg round(Reg a) { return _mm512_roundscale_ps(a, 8); }  // nearest, no exception
    static inline Reg scale_by_power(Reg x, Reg n) {
        const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        return _mm512_mul_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
    }
    // A bit a lane where a < b.
    static inline uint32_t less(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
    static inline Reg where_less(Reg a, Reg b, Reg yes, Reg no) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
    }

    // Lanes are added 8 apart, then 4, 2, 1: the same tree for one register and for four at once.
    static inline Reg fold2(Reg a, Reg b) {  // -> 8 of a, 8 of b, in blocks of 4
        return add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    }
    static inline Reg sum4(Reg a, Reg b, Reg c, Reg d) {  // -> each sum in its block of 4
        const Reg ab = fold2(a, b), cd = fold2(c, d);
        Reg all = add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
        all = add(all, _mm512_permute_ps(all, 0x4E));
        return add(all, _mm512_permute_ps(all, 0xB1));
    }
    static inline float sum(Reg a) { return _mm512_cvtss_f32(sum4(a, a, a, a)); }
    static inline void sums(const Reg (&a)[4], float* out) {
        const Reg all = sum4(a[0], a[1], a[2], a[3]);
        _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, all)));
    }
    static inline void sums(const Reg (&a)[1], float* out) { out[0] = sum(a[0]); }
    static inline float largest(Reg a) { return _mm512_reduce_max_ps(a); }

    static inline Doubles zero_doubles() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
    static inline Doubles accumulate(Doubles total, Reg a) {
        const __m256 low = _mm512_castps512_ps256(a);
        const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
        return {_mm512_add_pd(total.low, _mm512_cvtps_pd(low)),
                _mm512_add_pd(total.high, _mm512_cvtps_pd(high))};
    }
    static inline void store(double* p, Doubles a) {
        _mm512_storeu_pd(p, a.low);
        _mm512_storeu_pd(p + 8, a.high);
    }
};

}  // namespace tiedlm
