// What sampling and projection share: sums over a row, the order of tokens, the first of it.
//
// A row's log-sum is that of its blocks, in ascending order, each told relative to its own largest
// element. So it is the same whether a whole row is there or a block at a time.
#pragma once
#include <vector>

#include "context.hpp"

namespace tiedlm {

// A thread's, kept from call to call: the memory is then not asked for again.
struct Scratch {
    std::vector<Summary> blocks;
    std::vector<float> weights, maxima, logits;
    std::vector<double> sums;
    std::vector<int32_t> found;  // as long as the longest row
    std::vector<int32_t> ids, order;
    std::vector<uint64_t> keys;
};

Scratch& scratch();

inline int64_t num_blocks(int64_t size) { return (size + BLOCK - 1) / BLOCK; }

// Of a whole row.
struct RowSums {
    float largest;
    double log_sum, entropy;  // the entropy only where blocks have their moments
};

RowSums sum_up(const Summary* blocks, int64_t count);
RowSums sums_of(const Distributions& passes, const float* row, int64_t size, bool has_moment);

LogSum split(double log_sum);
// Of row r; zeros, which change nothing, where the rows are log-probabilities.
LogSum log_sum_of(const double* sums, int64_t r);

// Ascending keys are descending log-probabilities, and ascending ids among equal ones.
uint64_t key(float logprob, int32_t id);
inline int32_t id_of(uint64_t key) { return int32_t(key & 0xFFFFFFFFu); }
// Leaves the first `count` in ascending order, and no others.
void keep_first(std::vector<uint64_t>& keys, int64_t count);

// Below `x` by more than roundings: a smaller logit may have the log-probability of a larger one.
// Their distance to the log-sum is below 16 where it is near the largest, else as large as told.
float step_below(float x, float distance);
// The count-th largest of these maxima, which are then in any order; -inf where there are fewer.
float floor_of(std::vector<float>& maxima, int64_t count);
// Leaves the ids of the elements that are at least `floor`, ascending.
void find(const Distributions& passes, const float* row, int64_t size, float floor);

// The lowest id of the largest log-probability; log_sum: NaN where it is not known.
int64_t most_likely(const Distributions& passes, const float* logits, int64_t size, double log_sum);
// row (size,) -> ids (count,), the most likely first
void top(const Distributions& passes, const float* row, int64_t size, LogSum sum, int64_t count,
         int64_t* ids);

}  // namespace tiedlm
