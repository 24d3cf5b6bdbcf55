// Norms, and what else is done to each row by itself: sums, limits, rotation, picking columns.
//
// A norm's sums run in 16 lanes over ascending places, then one fixed tree; the rest is one element
// at a time, each product and sum rounded by itself, as torch does it.
#pragma once
#include "jobs.hpp"

namespace tiedlm {

template <class V>
inline typename V::Reg load_up_to(const float* p, int64_t left) {
    return left < LANES ? V::load(p, int(left)) : V::load(p);
}

// of x - mean
template <class V>
inline float sum_of_squares(const float* x, int64_t width, float mean) {
    const typename V::Reg middle = V::set(mean);
    typename V::Reg sum = V::zero();
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        const typename V::Reg far = V::sub(V::load(x + i), middle);
        sum = V::fma(far, far, sum);
    }
    float last[LANES] = {};  // beyond the row's end there is no distance from the mean
    for (int64_t j = i; j < width; ++j) last[j - i] = x[j] - mean;
    const typename V::Reg far = V::load(last);
    return V::sum(V::fma(far, far, sum));
}

template <class V>
inline float mean_of(const float* x, int64_t width) {
    typename V::Reg sum = V::zero();
    for (int64_t i = 0; i < width; i += LANES)
        sum = V::add(sum, load_up_to<V>(x + i, width - i));
    return V::sum(sum) / float(width);
}

template <class V>
void normalize(const Norm& job, Range rows) {
    const int64_t W = job.width;
    for (int64_t r = rows.first; r < rows.last; ++r) {
        const float* x = job.x + r * W;
        const float* weight = job.weight + r % job.num_weights * W;
        const float* onto = job.onto == nullptr ? nullptr : job.onto + r * W;
        float* out = job.out + r * W;
        const float mean = job.has_mean ? mean_of<V>(x, W) : 0.0f;
        const float square = sum_of_squares<V>(x, W, mean) / float(W);
        const float by = 1.0f / __builtin_sqrtf(square + job.eps);
        for (int64_t i = 0; i < W; ++i) out[i] = (x[i] - mean) * by * weight[i];
        if (job.bias != nullptr)
            for (int64_t i = 0; i < W; ++i) out[i] += job.bias[i];
        if (onto != nullptr)
            for (int64_t i = 0; i < W; ++i) out[i] += onto[i];
    }
}

template <class V>
void add(float* x, const float* onto, float by, int64_t size) {
    if (by != 1.0f)
        for (int64_t i = 0; i < size; ++i) x[i] *= by;
    if (onto != nullptr)
        for (int64_t i = 0; i < size; ++i) x[i] += onto[i];
}

// NaN stays NaN
template <class V>
void clamp(float limit, float* x, int64_t size) {
    for (int64_t i = 0; i < size; ++i) x[i] = x[i] < -limit ? -limit : x[i] > limit ? limit : x[i];
}

// Places i and i + apart of a head turn by an angle, i = 0, stride, 2*stride ...
template <class V>
inline void turn(float* x, const float* cosines, const float* sines, int64_t half, int64_t apart,
                 int64_t stride) {
    for (int64_t i = 0; i < half; ++i) {
        const float a = x[i * stride], b = x[i * stride + apart];
        x[i * stride] = a * cosines[i] - b * sines[i];
        x[i * stride + apart] = b * cosines[i] + a * sines[i];
    }
}

template <class V>
void rotate(const Rotation& job, Range tokens) {
    const int64_t H = job.num_heads, D = job.head_dim, half = job.half;
    for (int64_t n = tokens.first; n < tokens.last; ++n)
        for (int64_t h = 0; h < H; ++h) {
            float* x = job.x + (n * H + h) * D;
            const float *cosines = job.cosines + n * half, *sines = job.sines + n * half;
            if (job.pairs == Pairs::HALVES)
                turn<V>(x, cosines, sines, half, half, 1);
            else
                turn<V>(x, cosines, sines, half, 1, 2);
        }
}

template <class V>
constexpr Rowwise ROWWISE = {normalize<V>, add<V>, clamp<V>, rotate<V>};

}  // namespace tiedlm
