// The entry points of what is done to each row by itself.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "context.hpp"
#include "entries.hpp"

using namespace tiedlm;

namespace {

constexpr int64_t PIECE_ELEMENTS = 16 << 10;

const Rowwise& rowwise_of(void* handle) {
    return static_cast<Context*>(handle)->kernels.rowwise;
}

// function(range) over [0, count) in pieces of about PIECE_ELEMENTS, `width` elements each
template <class F>
void run_rows(void* handle, int64_t count, int64_t width, int64_t operations, const F& function) {
    const int64_t step = std::max<int64_t>(1, PIECE_ELEMENTS / width);
    run(*static_cast<Context*>(handle), (count + step - 1) / step, operations * count * width,
        [&](int64_t i) { function(Range{i * step, std::min((i + 1) * step, count)}); });
}

}  // namespace

extern "C" {

void tiedlm_normalize(void* handle, int has_mean, const float* x, const float* weight,
                      int64_t num_weights, const float* bias, const float* onto, float eps,
                      float* out, int64_t num_rows, int64_t width) {
    const Norm job{x, weight, bias, onto, out, num_weights, width, eps, has_mean != 0};
    run_rows(handle, num_rows, width, 6,
             [&](Range rows) { rowwise_of(handle).normalize(job, rows); });
}

void tiedlm_add(void* handle, float* x, const float* onto, float by, int64_t size) {
    run_rows(handle, size, 1, 2, [&](Range at) {
        rowwise_of(handle).add(x + at.first, onto == nullptr ? nullptr : onto + at.first, by,
                               at.last - at.first);
    });
}

void tiedlm_clamp(void* handle, float limit, float* x, int64_t size) {
    run_rows(handle, size, 1, 2, [&](Range at) {
        rowwise_of(handle).clamp(limit, x + at.first, at.last - at.first);
    });
}

// positions (N,), frequencies (half,) -> cosines and sines (N,half), times scale
void tiedlm_angles(void* handle, const int64_t* positions, const float* frequencies, float scale,
                   float* cosines, float* sines, int64_t num_tokens, int64_t half) {
    run_rows(handle, num_tokens, half, 2 * OPERATIONS_PER_EXP, [&](Range tokens) {
        for (int64_t n = tokens.first; n < tokens.last; ++n)
            for (int64_t i = 0; i < half; ++i) {
                const float radians = float(positions[n]) * frequencies[i];
                cosines[n * half + i] = std::cos(radians) * scale;
                sines[n * half + i] = std::sin(radians) * scale;
            }
    });
}

void tiedlm_rotate(void* handle, int pairs, const float* cosines, const float* sines, float* x,
                   int64_t num_tokens, int64_t num_heads, int64_t head_dim, int64_t half) {
    const Rotation job{x, cosines, sines, num_heads, head_dim, half, Pairs(pairs)};
    run_rows(handle, num_tokens, num_heads * head_dim, 6,
             [&](Range tokens) { rowwise_of(handle).rotate(job, tokens); });
}

// Columns first + i*step .. + width, for i in [0, count), of x (N,stride) -> out (N,count*width)
void tiedlm_columns(void* handle, const float* x, float* out, int64_t num_rows, int64_t stride,
                    int64_t first, int64_t width, int64_t step, int64_t count) {
    run_rows(handle, num_rows, count * width, 2, [&](Range rows) {
        for (int64_t r = rows.first; r < rows.last; ++r)
            for (int64_t i = 0; i < count; ++i)
                std::memcpy(out + (r * count + i) * width, x + r * stride + first + i * step,
                            size_t(width) * sizeof(float));
    });
}

// k and v (N,K,D) to slots[n] = page * page_size + offset of keys (P,K,D,page_size) and values
// (P,K,page_size,D)
void tiedlm_write(void* handle, const float* k, const float* v, const int64_t* slots, float* keys,
                  float* values, int64_t num_tokens, int64_t num_kv_heads, int64_t head_dim,
                  int64_t page_size) {
    const int64_t D = head_dim;
    run_rows(handle, num_tokens, num_kv_heads * D, 4, [&](Range tokens) {
        for (int64_t n = tokens.first; n < tokens.last; ++n)
            for (int64_t h = 0; h < num_kv_heads; ++h) {
                const int64_t from = (n * num_kv_heads + h) * D, offset = slots[n] % page_size;
                const int64_t page = (slots[n] / page_size * num_kv_heads + h) * D * page_size;
                for (int64_t d = 0; d < D; ++d)
                    keys[page + d * page_size + offset] = k[from + d];
                std::memcpy(values + page + offset * D, v + from, size_t(D) * sizeof(float));
            }
    });
}

// -> 1 where every element of x (size,) is finite, else 0
int tiedlm_is_finite(void*, const float* x, int64_t size) {
    uint32_t largest = 0;  // of the exponents, which are all ones in what is not finite
    for (int64_t i = 0; i < size; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        largest = std::max(largest, bits & 0x7F800000u);
    }
    return largest != 0x7F800000u;
}

}  // extern "C"
