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

template <class V>
inline double total(typename V::Doubles lanes) {
    double parts[LANES], all = 0.0;
    V::store(parts, lanes);
    for (const double part : parts) all += part;
    return all;
}

// The sum of term(i, x) over a row's elements, in float64: in float32 the error over 262,144 terms
// would reach the sixth digit. What is missing to 16 is -inf, whose term must be 0.
template <class V, class F>
inline double sum_row(const float* row, int64_t size, F term) {
    typename V::Doubles lanes = V::zero_doubles();
    for (int64_t i = 0; i < size; i += LANES)
        lanes = V::accumulate(lanes,
                              term(i, load_filled<V>(row + i, size - i, -__builtin_inff())));
    return total<V>(lanes);
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

// What rounding took from a - b: the exact difference is `rounded` and this (Knuth 1969, 4.2.2).
template <class V>
inline typename V::Reg lost_by(typename V::Reg a, typename V::Reg b, typename V::Reg rounded) {
    const typename V::Reg like_a = V::add(rounded, b), like_b = V::sub(like_a, rounded);
    return V::add(V::sub(a, like_a), V::sub(like_b, b));
}

// What x - largest loses by rounding is not lost: e^(x + lost) is e^x * (1 + lost). All that is so far
// below that it counts as 0 is taken for one finite number; of a block of -inf the largest is 0.
template <class V, bool HAS_MOMENT>
Summary summarise_of(const float* block, int64_t size) {
    const float top = largest<V>(block, size), nothing = -__builtin_inff();
    const float from = top == nothing ? 0.0f : top;
    const float far = __builtin_fmaxf(from - __builtin_fmaxf(200.0f, __builtin_fabsf(from)), -3e38f);
    const typename V::Reg by = V::set(from), least = V::set(far);
    typename V::Doubles sums = V::zero_doubles(), moments = V::zero_doubles();
    for (int64_t i = 0; i < size; i += LANES) {
        const typename V::Reg whole = V::max(least, load_filled<V>(block + i, size - i, nothing));
        const typename V::Reg x = V::sub(whole, by), lost = lost_by<V>(whole, by, x);
        const typename V::Reg plain = exp_negative<V>(x), e = V::fma(plain, lost, plain);
        sums = V::accumulate(sums, e);
        if (HAS_MOMENT)
            moments = V::accumulate(moments, V::mul(e, V::max(V::set(SMALLEST_EXPONENT), x)));
    }
    return {top, total<V>(sums), HAS_MOMENT ? total<V>(moments) : 0.0};
}

template <class V>
Summary summarise(const float* block, int64_t size, bool has_moment) {
    return has_moment ? summarise_of<V, true>(block, size) : summarise_of<V, false>(block, size);
}

template <class V>
int64_t num_above(const float* row, int64_t size, float low, float high, int64_t* num_near) {
    const typename V::Reg least = V::set(low), most = V::set(high);
    const float nothing = -__builtin_inff();
    int64_t above = 0, below = 0;
    for (int64_t i = 0; i < size; i += LANES) {
        const typename V::Reg x = load_filled<V>(row + i, size - i, nothing);
        above += __builtin_popcount(V::less(most, x));
        below += __builtin_popcount(V::less(x, least));
    }
    *num_near += round_up(size, LANES) - above - below;  // the filler is below
    return above;
}

template <class V>
float mass_from(const float* row, int64_t size, float floor) {
    const typename V::Reg least = V::set(floor), nothing = V::zero();
    typename V::Reg sums[4] = {nothing, nothing, nothing, nothing};
    const auto add = [&](typename V::Reg& sum, typename V::Reg x) {
        sum = V::add(sum, V::where_less(x, least, nothing, x));
    };
    int64_t i = 0;
    for (; i + 4 * LANES <= size; i += 4 * LANES)
        for (int j = 0; j < 4; ++j) add(sums[j], V::load(row + i + j * LANES));
    for (; i < size; i += LANES) add(sums[0], load_filled<V>(row + i, size - i, 0.0f));
    return V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
}

template <class V>
bool is_finite(const float* row, int64_t size) {
    typename V::Reg zeros = V::zero();  // NaN once an element is not finite
    for (int64_t i = 0; i < size; i += LANES)
        zeros = V::fma(load_filled<V>(row + i, size - i, 0.0f), V::zero(), zeros);
    return V::less(zeros, V::set(1.0f)) == 0xFFFFu;
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
    largest<V>,   divide<V>,    exponentials<V>, summarise<V>, log_softmax<V>,
    num_above<V>, mass_from<V>, is_finite<V>,    num_before<V>, at_least<V>,
    maxima<V>,
};

}  // namespace tiedlm
