// Quantised products for x86-64 processors with AVX-512 VNNI: one vpdpbusd a line and input byte.
//
// The pragma stands before every function of this file: see kernels_avx2.cpp.
#include "jobs.hpp"

#ifdef TIEDLM_X86
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c,popcnt")
#include "quantised_kernels.hpp"
#include "vector_avx512.hpp"

namespace tiedlm {

namespace {

// An input of 16 bits is two balanced signed bytes, 256 * high + low, and its product two products.
struct Vnni {
    using V = Avx512;
    using Ints = __m512i;
    static constexpr int TILES = 2, WIDE_ROWS = 2, NARROW_ROWS = 4;  // 8 sums, 16 lines of codes
    static constexpr int64_t WIDE_BYTES = 64, NARROW_BYTES = 32;

    template <int T>
    struct Unpacked {
        __m512i line[T][QUADS];
    };

    template <bool WIDE>
    static inline RoundedBlock round(const float* x, uint8_t* out) {
        constexpr float widest = WIDE ? WIDEST : NARROWEST;
        const __m512 half[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + TILE)};
        const __m512i bits = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(half[0])),
                                              _mm512_castps_si512(_mm512_abs_ps(half[1])));
        const int32_t highest = _mm512_reduce_max_epi32(bits);  // NaN is above infinity
        float largest;
        std::memcpy(&largest, &highest, 4);
        const float by = inverse_for(largest, widest);
        const __mmask16 counts = by == 0.0f ? 0 : 0xFFFF;
        RoundedBlock found{scale_for(largest, widest), {0, 0}};
        TIEDLM_UNROLL for (int h = 0; h < 2; ++h) {
            const __m512 scaled = _mm512_mul_ps(half[h], _mm512_set1_ps(by));
            const __m512i integers = _mm512_maskz_cvtps_epi32(counts, scaled);
            found.sums[h] = _mm512_reduce_add_epi32(integers);
            __m512i high = integers;
            if constexpr (WIDE) {
                high = _mm512_srai_epi32(_mm512_add_epi32(integers, _mm512_set1_epi32(128)), 8);
                store(out + BLOCK_OF_INPUTS + TILE * h, integers);  // the low bytes as they are
            }
            store(out + TILE * h, high);
        }
        return found;
    }
    // The lowest byte of each
    static inline void store(uint8_t* out, __m512i integers) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(integers));
    }

    static inline __m512i load(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512i bits(__m512i x, int shift, int mask) {
        return _mm512_and_si512(_mm512_srli_epi16(x, unsigned(shift)), _mm512_set1_epi8(char(mask)));
    }

    template <int BITS, int T>
    static inline void unpack(const uint8_t* p, int t, Unpacked<T>& out) {
        if constexpr (BITS == 8) {
            TIEDLM_UNROLL for (int q = 0; q < QUADS; ++q) out.line[t][q] = load(p + LINE * q);
            return;
        }
        TIEDLM_UNROLL for (int i = 0; i < 4; ++i) {
            const __m512i two = load(p + LINE * i);
            out.line[t][2 * i] = bits(two, 0, 15);
            out.line[t][2 * i + 1] = bits(two, 4, 15);
        }
        constexpr int MORE = BITS - 4;
        TIEDLM_UNROLL for (int q = 0; q < (MORE > 0 ? QUADS : 0); ++q) {
            const __m512i high = load(p + LINE * (4 + q * MORE / 8));
            const __m512i more = bits(high, q * MORE % 8, (1 << MORE) - 1);
            out.line[t][q] = _mm512_or_si512(out.line[t][q], _mm512_slli_epi16(more, 4));
        }
    }

    static inline __m512i quad(const uint8_t* p) {
        int32_t four;
        std::memcpy(&four, p, 4);
        return _mm512_set1_epi32(four);
    }

    // The quads of the block's `part`th group. A chain of products waits for itself: rows, tiles and
    // where rows are few the bytes and every other quad have sums of their own.
    template <class K, bool WIDE, int T, int R>
    static inline void dot(const Unpacked<T>& codes, int part, const uint8_t* x,
                           const int32_t* corrections, Ints (&sum)[R][T]) {
        constexpr int64_t bytes = WIDE ? WIDE_BYTES : NARROW_BYTES;
        constexpr int CHAINS = R == 1 ? 2 : 1;
        const int first = part * K::QUADS_A_PART;
        __m512i high[CHAINS][R][T], low[CHAINS][R][T];
        TIEDLM_UNROLL for (int c = 0; c < CHAINS; ++c)
            TIEDLM_UNROLL for (int r = 0; r < R; ++r)
                TIEDLM_UNROLL for (int t = 0; t < T; ++t)
                    high[c][r][t] = low[c][r][t] = _mm512_setzero_si512();
        if constexpr (!K::OFFSET)
            TIEDLM_UNROLL for (int r = 0; r < R; ++r)
                TIEDLM_UNROLL for (int t = 0; t < T; ++t)
                    (WIDE ? low : high)[0][r][t] = _mm512_set1_epi32(corrections[r]);
        TIEDLM_UNROLL for (int i = 0; i < K::QUADS_A_PART; ++i) {
            const int q = first + i;
            TIEDLM_UNROLL for (int r = 0; r < R; ++r) {
                const __m512i input = quad(x + r * bytes + 4 * q);
                TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                    __m512i& onto = high[i % CHAINS][r][t];
                    onto = _mm512_dpbusd_epi32(onto, codes.line[t][q], input);
                }
                if constexpr (!WIDE) continue;
                const __m512i rest = quad(x + r * bytes + BLOCK_OF_INPUTS + 4 * q);
                TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                    __m512i& onto = low[i % CHAINS][r][t];
                    onto = _mm512_dpbusd_epi32(onto, codes.line[t][q], rest);
                }
            }
        }
        TIEDLM_UNROLL for (int r = 0; r < R; ++r)
            TIEDLM_UNROLL for (int t = 0; t < T; ++t) {
                __m512i all = high[0][r][t], rest = low[0][r][t];
                if constexpr (CHAINS == 2) {
                    all = _mm512_add_epi32(all, high[1][r][t]);
                    if constexpr (WIDE) rest = _mm512_add_epi32(rest, low[1][r][t]);
                }
                sum[r][t] = WIDE ? _mm512_add_epi32(_mm512_slli_epi32(all, 8), rest) : all;
            }
    }

    static inline __m512 to_float(Ints x) { return _mm512_cvtepi32_ps(x); }
    static inline __m512 from_half(const uint8_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static inline __m512 from_bytes(const uint8_t* p) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    }
    static inline __m512 fma(__m512 a, __m512 b, __m512 c) { return V::fma(a, b, c); }
};

}  // namespace

const Quantised quantised_vnni = QUANTISED<Vnni>;

}  // namespace tiedlm
#endif
