// IEEE half precision, without an instruction for it.
#pragma once
#include <cstdint>
#include <cstring>

namespace tiedlm {

// Exact: every half is a float. NaN and infinity stay what they are.
static inline float float_of_half(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff;
    const bool is_subnormal = rest < 0x0400, is_special = rest >= 0x7c00;
    if (is_subnormal) {
        const float size = float(rest) * 5.9604644775390625e-8f;  // 2^-24
        return sign ? -size : size;
    }
    const uint32_t bits = sign | ((rest << 13) + (is_special ? 0x70000000u : 0x38000000u));
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

static inline float float_of_half(const uint8_t* p) {
    uint16_t half;
    std::memcpy(&half, p, 2);
    return float_of_half(half);
}

}  // namespace tiedlm
