// Passes over one row of logits or log-probabilities: sums, ranks, candidates.
#pragma once
#include "elementwise.hpp"

namespace tiedlm {

// What is missing to 16 elements is filled in.
template <class V>
inline typename V::Reg load_filled(const float* p, int64_t left, float filler) {
    if (left >= LANES) return V::load(p);
    float filled[LANES];
    for (int64_t i = 0; i < LANES; ++i) filled[i] = i < left ? p[i] : filler;
    return V::load(filled);
}

template <class V>
inline void store_some(float* p, int64_t left, typename V::Reg x) {
    if (left >= LANES)
        V::store(p, x);
    else
        V::store(p, x, int(left));
}

template <class V>
float largest(const float* row, int64_t size) {
    const float nothing = -__builtin_inff();
    typename V::Reg all[4] = {V::set(nothing), V::set(nothing), V::set(nothing), V::set(nothing)};
    int64_t i = 0;
    for (; i + 4 * LANES <= size; i += 4 * LANES)
        for (int j = 0; j < 4; ++j) all[j] = V::max(V::load(row + i + j * LANES), all[j]);
    for (; i < size; i += LANES) all[0] = V::max(load_filled<V>(row + i, size - i, nothing), all[0]);
    return V::largest(V::max(V::max(all[0], all[1]), V::max(all[2], all[3])));
}

// The sum of term(i, x) over a row's elements, in float64: in float32 the error over 262,144 terms
// would reach the sixth digit. What is missing to 16 is -inf, whose term must be 0.
template <class V, class F>
inline double sum_row(const float* row, int64_t size, F term) {
    typename V::Doubles lanes = V::zero_doubles();
    for (int64_t i = 0; i < size; i += LANES)
        lanes = V::accumulate(lanes,
                              term(i, load_filled<V>(row + i, size - i, -__builtin_inff())));
    double parts[LANES], total = 0.0;
    V::store(parts, lanes);
    for (const double part : parts) total += part;
    return total;
}

template <class V>
void divide(const float* row, int64_t size, float divisor, float* out) {
    const typename V::Reg by = V::set(divisor);
    for (int64_t i = 0; i < size; i += LANES)
        store_some<V>(out + i, size - i, V::div(load_filled<V>(row + i, size - i, 0.0f), by));
}

// Of row / divisor; DIVIDED false: of row, which is the same for a divisor of 1.
template <class V, bool DIVIDED>
void exponentials_of(const float* row, int64_t size, float divisor, float shift, float* weights,
                     double* sums) {
    const typename V::Reg by = V::set(shift), of = V::set(divisor);
    for (int64_t first = 0; first < size; first += BLOCK) {
        const int64_t count = first + BLOCK < size ? BLOCK : size - first;
        *sums++ = sum_row<V>(row + first, count, [&](int64_t i, typename V::Reg x) {
            if (DIVIDED) x = V::div(x, of);
            const typename V::Reg e = exp_negative<V>(V::sub(x, by));
            if (weights != nullptr) store_some<V>(weights + first + i, count - i, e);
            return e;
        });
    }
}

template <class V>
void exponentials(const float* row, int64_t size, float divisor, float shift, float* weights,
                  double* sums) {
    const auto pass = divisor == 1.0f ? exponentials_of<V, false> : exponentials_of<V, true>;
    pass(row, size, divisor, shift, weights, sums);
}

template <class V>
struct Told {  // log-probabilities of logits, in the one order of operations that makes their bits
    typename V::Reg high, low;

    explicit Told(LogSum sum) : high(V::set(sum.high)), low(V::set(sum.low)) {}
    typename V::Reg operator()(typename V::Reg x) const { return V::sub(V::sub(x, high), low); }
};

template <class V>
void log_softmax(const float* row, int64_t size, LogSum sum, float* out) {
    const Told<V> told(sum);
    for (int64_t i = 0; i < size; i += LANES)
        store_some<V>(out + i, size - i, told(load_filled<V>(row + i, size - i, 0.0f)));
}

template <class V>
double entropy(const float* row, int64_t size, LogSum sum) {
    const Told<V> told(sum);
    return -sum_row<V>(row, size, [&](int64_t, typename V::Reg x) {
        const typename V::Reg y = told(x);
        return V::mul(exp_negative<V>(y), V::max(V::set(SMALLEST_EXPONENT), y));
    });
}

template <class V>
int64_t num_before(const float* row, int64_t size, LogSum sum, int64_t id) {
    const Told<V> told(sum);
    const float here = logprob(sum, row[id]);
    const typename V::Reg value = V::set(here);
    int64_t count = 0, i = 0;
    for (; i + LANES <= id; i += LANES)
        count += LANES - __builtin_popcount(V::less(told(V::load(row + i)), value));
    for (; i < size && (i <= id || i % LANES != 0); ++i)
        count += logprob(sum, row[i]) > here || (logprob(sum, row[i]) == here && i < id);
    for (; i + LANES <= size; i += LANES)
        count += __builtin_popcount(V::less(value, told(V::load(row + i))));
    for (; i < size; ++i) count += logprob(sum, row[i]) > here;
    return count;
}

template <class V>
int64_t at_least(const float* row, int64_t size, float floor, int32_t* ids) {
    const typename V::Reg value = V::set(floor);
    const float nothing = -__builtin_inff();
    int64_t count = 0;
    for (int64_t i = 0; i < size; i += LANES) {
        uint32_t found = ~V::less(load_filled<V>(row + i, size - i, nothing), value) & 0xFFFFu;
        if (i + LANES > size) found &= (1u << (size - i)) - 1;
        for (; found != 0; found &= found - 1) ids[count++] = int32_t(i + __builtin_ctz(found));
    }
    return count;
}

template <class V>
void maxima(const float* row, int64_t size, float* out) {
    for (int64_t i = 0; i < size; i += MAXIMA)
        *out++ = largest<V>(row + i, i + MAXIMA < size ? MAXIMA : size - i);
}

template <class V>
constexpr Distributions DISTRIBUTIONS = {
    largest<V>, divide<V>,     exponentials<V>, log_softmax<V>,
    entropy<V>, num_before<V>, at_least<V>,     maxima<V>,
};

}  // namespace tiedlm
