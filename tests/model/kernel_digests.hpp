// Inputs that are the same on any processor, drawn by integer arithmetic, and digests of results.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

// ORDINARY: about 1. WIDE: of any size whose products are finite. SPECIAL: one in 40 is of the list.
enum Values { ORDINARY, WIDE, SPECIAL };
constexpr uint32_t SPECIALS[] = {0,          0x80000000, 1,          0x807FFFFF, 0x00800000,
                                 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0xFF7FFFFF};

inline float of_bits(uint32_t bits) {
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

inline uint32_t bits_of(float x) {
    uint32_t out;
    std::memcpy(&out, &x, sizeof out);
    return out;
}

struct Chance {  // splitmix64 (Steele, Lea, Flood 2014)
    uint64_t state;

    uint64_t next() {
        uint64_t z = state += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    int64_t below(int64_t bound) { return int64_t(next() % uint64_t(bound)); }
    float draw(Values values) {
        if (values == SPECIAL && below(40) == 0) return of_bits(SPECIALS[below(10)]);
        int64_t sum = 0;
        for (int i = 0; i < 4; ++i) sum += below(1 << 22) - (1 << 21);
        const float out = float(sum) / float(1 << 21);
        return values == WIDE ? out * of_bits(uint32_t(127 - 40 + below(81)) << 23) : out;
    }
    std::vector<float> floats(int64_t count, Values values) {
        std::vector<float> out(static_cast<size_t>(count));
        for (float& each : out) each = draw(values);
        return out;
    }
};

template <class T>
void tell(const std::string& what, const T* out, int64_t count) {
    uint64_t digest = 0xCBF29CE484222325u;  // FNV-1a
    for (int64_t i = 0; i < count; ++i) {
        uint64_t bits = 0;
        if (out[i] == out[i]) std::memcpy(&bits, out + i, sizeof(T));
        digest = (digest ^ (out[i] == out[i] ? bits : ~bits)) * 0x100000001B3u;
    }
    std::printf("%s %016llx\n", what.c_str(), static_cast<unsigned long long>(digest));
}

template <class T>
void tell(const std::string& what, const std::vector<T>& out) {
    tell(what, out.data(), int64_t(out.size()));
}

inline std::string named(std::string out, std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) out += " " + std::to_string(size);
    return out;
}
