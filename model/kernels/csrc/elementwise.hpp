// The exponential, and gates: one element at a time.
#pragma once
#include "jobs.hpp"

namespace tiedlm {

constexpr float SMALLEST_EXPONENT = -87.33f;  // e to this is just above the least normal float
constexpr float EXP_COEFFICIENTS[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                                      1.6666665459e-1f, 5.0000001201e-1f};

// e^x for x <= 0, within 2 units of the last place; 0 below SMALLEST_EXPONENT; NaN stays NaN.
//
// x = n*ln2 + r with |r| <= ln2/2; e^r by the polynomial of Cephes' expf (Moshier 1992), times 2^n.
template <class V>
inline typename V::Reg exp_negative(typename V::Reg x) {
    using R = typename V::Reg;
    const R least = V::set(SMALLEST_EXPONENT);
    const R bounded = V::max(least, x);
    const R n = V::round(V::mul(bounded, V::set(1.44269504088896341f)));
    R r = V::fma(n, V::set(-0.693359375f), bounded);
    r = V::fma(n, V::set(2.12194440e-4f), r);
    R p = V::set(1.9875691500e-4f);
    for (const float c : EXP_COEFFICIENTS) p = V::fma(p, r, V::set(c));
    p = V::add(V::fma(p, V::mul(r, r), r), V::set(1.0f));
    return V::where_less(x, least, V::zero(), V::scale_by_power(p, n));
}

constexpr float TANH_COEFFICIENTS[] = {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                                       -3.33332819422e-1f};
constexpr float SMALL_TANH = 0.625f;  // from here on 1 - 2/(e^2x + 1) loses nothing

// Within 4 units of the last place; the split and the polynomial are Cephes' tanhf (Moshier 1992).
// NaN stays NaN.
template <class V>
inline typename V::Reg tanh_of(typename V::Reg x) {
    using R = typename V::Reg;
    const R negative = V::negative_abs(x), square = V::mul(x, x), one = V::set(1.0f);
    R p = V::set(-5.70498872745e-3f);
    for (const float c : TANH_COEFFICIENTS) p = V::fma(p, square, V::set(c));
    const R near = V::fma(p, V::mul(square, x), x);
    const R e = exp_negative<V>(V::add(negative, negative));
    const R far = V::div(V::sub(one, e), V::add(one, e));
    const R mirrored = V::where_less(x, V::zero(), V::sub(V::zero(), far), far);
    return V::where_less(negative, V::set(-SMALL_TANH), mirrored, near);
}

template <class V>
void cap(float limit, float* x, int64_t size) {
    const typename V::Reg by = V::set(limit);
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES)
        V::store(x + i, V::mul(by, tanh_of<V>(V::div(V::load(x + i), by))));
    if (i == size) return;
    const int rest = int(size - i);
    V::store(x + i, V::mul(by, tanh_of<V>(V::div(V::load(x + i, rest), by))), rest);
}

// x * sigmoid(s), where s is x for SiLU. For GELU by tanh (Hendrycks & Gimpel 2016) it is
// 2*sqrt(2/pi)*(x + 0.044715*x^3), because (1 + tanh(u))/2 = sigmoid(2u).
template <class V>
inline typename V::Reg gated(Gate gate, typename V::Reg x) {
    using R = typename V::Reg;
    R s = x;
    if (gate == Gate::GELU_TANH) {
        const R cubic = V::mul(V::mul(V::set(0.0713548162726f), V::mul(x, x)), x);
        s = V::fma(V::set(1.59576912160573f), x, cubic);
    }
    const R one = V::set(1.0f), e = exp_negative<V>(V::negative_abs(s));
    const R top = V::where_less(s, V::zero(), e, one);
    return V::div(V::mul(x, top), V::add(one, e));
}

// x times the normal distribution's cumulative probability, by the C library one at a time:
// checkpoints that want it are rare.
template <class V>
void gate_exactly(float* x, const float* up, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
        const float y = 0.5f * x[i] * __builtin_erfcf(-0.70710678118655f * x[i]);
        x[i] = up == nullptr ? y : y * up[i];
    }
}

template <class V>
void gate_relu(float* x, const float* up, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
        const float y = x[i] < 0.0f ? 0.0f : x[i];  // NaN stays NaN
        x[i] = up == nullptr ? y : y * up[i];
    }
}

template <class V>
void gate(Gate kind, float* x, const float* up, int64_t size) {
    if (kind == Gate::GELU) return gate_exactly<V>(x, up, size);
    if (kind == Gate::RELU) return gate_relu<V>(x, up, size);
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const typename V::Reg y = gated<V>(kind, V::load(x + i));
        V::store(x + i, up == nullptr ? y : V::mul(y, V::load(up + i)));
    }
    if (i == size) return;
    const int rest = int(size - i);
    const typename V::Reg y = gated<V>(kind, V::load(x + i, rest));
    V::store(x + i, up == nullptr ? y : V::mul(y, V::load(up + i, rest)), rest);
}

}  // namespace tiedlm
