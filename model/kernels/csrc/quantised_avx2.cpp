// Quantised products for x86-64 processors with AVX2: vpmaddwd over codes and inputs of 16 bits.
//
// The pragma stands before every function of this file: see kernels_avx2.cpp.
#include "jobs.hpp"

#ifdef TIEDLM_X86
#pragma GCC target("avx2,fma,f16c,popcnt")
#include "quantised_kernels.hpp"
#include "vector_avx2.hpp"

namespace tiedlm {

namespace {

struct Avx2Codes {
    using V = Avx2;
    struct Ints {
        __m256i low, high;  // outputs 0 to 7, 8 to 15
    };
    static constexpr int TILES = 1, WIDE_ROWS = 1, NARROW_ROWS = 1;
    static constexpr int64_t WIDE_BYTES = 64, NARROW_BYTES = 64;

    // Of each half line the codes of inputs 0 and 2 of each output, and those of inputs 1 and 3.
    template <int T>
    struct Unpacked {
        __m256i even[T][QUADS][2], odd[T][QUADS][2];
    };

    // A quad's inputs as 0 2 1 3, to meet the codes.
    template <bool WIDE>
    static inline RoundedBlock round(const float* x, uint8_t* out) {
        int32_t integers[BLOCK_OF_INPUTS];
        const RoundedBlock found = round_plainly(x, WIDE ? WIDEST : NARROWEST, integers);
        int16_t ordered[BLOCK_OF_INPUTS];
        for (int i = 0; i < BLOCK_OF_INPUTS; i += 4) {
            ordered[i] = int16_t(integers[i]);
            ordered[i + 1] = int16_t(integers[i + 2]);
            ordered[i + 2] = int16_t(integers[i + 1]);
            ordered[i + 3] = int16_t(integers[i + 3]);
        }
        std::memcpy(out, ordered, sizeof ordered);
        return found;
    }

    static inline __m256i load(const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    static inline __m256i bits(__m256i x, int shift, int mask) {
        return _mm256_and_si256(_mm256_srli_epi16(x, shift), _mm256_set1_epi8(char(mask)));
    }

    template <int BITS>
    static inline __m256i half_line(const uint8_t* p, int q, int half) {
        if constexpr (BITS == 8) return load(p + LINE * q + 32 * half);
        const __m256i low = bits(load(p + LINE * (q / 2) + 32 * half), q % 2 * 4, 15);
        constexpr int MORE = BITS - 4;
        if constexpr (MORE == 0) return low;
        const __m256i high = load(p + LINE * (4 + q * MORE / 8) + 32 * half);
        const __m256i more = bits(high, q * MORE % 8, (1 << MORE) - 1);
        return _mm256_or_si256(low, _mm256_slli_epi16(more, 4));
    }

    template <int BITS, int T>
    static inline void unpack(const uint8_t* p, int t, Unpacked<T>& out) {
        for (int q = 0; q < QUADS; ++q)
            for (int half = 0; half < 2; ++half) {
                const __m256i four = half_line<BITS>(p, q, half);
                out.even[t][q][half] = _mm256_and_si256(four, _mm256_set1_epi16(255));
                out.odd[t][q][half] = _mm256_srli_epi16(four, 8);
            }
    }

    static inline __m256i pair(const uint8_t* p) {
        int32_t two;
        std::memcpy(&two, p, 4);
        return _mm256_set1_epi32(two);
    }

    template <class K, bool WIDE, int T, int R>
    static inline void dot(const Unpacked<T>& codes, int part, const uint8_t* x,
                           const int32_t* corrections, Ints (&sum)[R][T]) {
        static_assert(T == 1 && R == 1);
        const __m256i start = _mm256_set1_epi32(K::OFFSET ? 0 : corrections[0]);
        Ints all = {start, start};
        TIEDLM_UNROLL for (int i = 0; i < K::QUADS_A_PART; ++i) {
            const int q = part * K::QUADS_A_PART + i;
            const __m256i even = pair(x + 8 * q), odd = pair(x + 8 * q + 4);
            all.low = add(all.low, codes.even[0][q][0], even);
            all.high = add(all.high, codes.even[0][q][1], even);
            all.low = add(all.low, codes.odd[0][q][0], odd);
            all.high = add(all.high, codes.odd[0][q][1], odd);
        }
        sum[0][0] = all;
    }
    static inline __m256i add(__m256i sum, __m256i codes, __m256i inputs) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(codes, inputs));
    }

    static inline Avx2::Reg to_float(Ints x) {
        return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)};
    }
    static inline Avx2::Reg from_half(const uint8_t* p) {
        const auto* halves = reinterpret_cast<const __m128i*>(p);
        return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
    }
    static inline Avx2::Reg from_bytes(const uint8_t* p) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
    }
    static inline Avx2::Reg fma(Avx2::Reg a, Avx2::Reg b, Avx2::Reg c) { return V::fma(a, b, c); }
};

}  // namespace

const Quantised quantised_avx2 = QUANTISED<Avx2Codes>;

}  // namespace tiedlm
#endif
