// Quantised products for any processor.
#include "half.hpp"
#include "quantised_kernels.hpp"
#include "vector_portable.hpp"

namespace tiedlm {

namespace {

struct PortableCodes {
    using V = Portable;
    struct Ints {
        int32_t lane[TILE];
    };
    static constexpr int TILES = 1, WIDE_ROWS = 1, NARROW_ROWS = 1;
    static constexpr int64_t WIDE_BYTES = 64, NARROW_BYTES = 64;

    template <int T>
    struct Unpacked {
        int16_t code[T][QUADS][4][TILE];
    };

    template <bool WIDE>
    static inline RoundedBlock round(const float* x, uint8_t* out) {
        int32_t integers[BLOCK_OF_INPUTS];
        const RoundedBlock found = round_plainly(x, WIDE ? WIDEST : NARROWEST, integers);
        int16_t narrowed[BLOCK_OF_INPUTS];
        for (int i = 0; i < BLOCK_OF_INPUTS; ++i) narrowed[i] = int16_t(integers[i]);
        std::memcpy(out, narrowed, sizeof narrowed);
        return found;
    }

    template <int BITS, int T>
    static inline void unpack(const uint8_t* p, int t, Unpacked<T>& out) {
        for (int q = 0; q < QUADS; ++q)
            for (int i = 0; i < 4; ++i)
                for (int o = 0; o < TILE; ++o)
                    out.code[t][q][i][o] = int16_t(code_of(BITS, p, q, 4 * o + i));
    }

    template <class K, bool WIDE, int T, int R>
    static inline void dot(const Unpacked<T>& codes, int part, const uint8_t* x,
                           const int32_t* corrections, Ints (&sum)[R][T]) {
        static_assert(T == 1 && R == 1);
        int16_t inputs[BLOCK_OF_INPUTS];
        std::memcpy(inputs, x, sizeof inputs);
        int32_t* all = sum[0][0].lane;
        for (int o = 0; o < TILE; ++o) all[o] = K::OFFSET ? 0 : corrections[0];
        for (int k = part * K::GROUP; k < (part + 1) * K::GROUP; ++k)
            for (int o = 0; o < TILE; ++o) all[o] += codes.code[0][k / 4][k % 4][o] * inputs[k];
    }

    static inline V::Reg to_float(const Ints& x) {
        return V::each([&](int i) { return float(x.lane[i]); });
    }
    static inline V::Reg from_half(const uint8_t* p) {
        return V::each([=](int i) { return float_of_half(p + 2 * i); });
    }
    static inline V::Reg from_bytes(const uint8_t* p) {
        return V::each([=](int i) { return float(int8_t(p[i])); });
    }
    // A call a lane where the compiler may not assume the instruction: once for 32 products, and
    // the bits are those of every other processor.
    static inline V::Reg fma(const V::Reg& a, const V::Reg& b, const V::Reg& c) {
        return V::each([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
    }
};

}  // namespace

const Quantised quantised_portable = QUANTISED<PortableCodes>;

}  // namespace tiedlm
