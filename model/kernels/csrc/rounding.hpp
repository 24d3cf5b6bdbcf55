// A quantised product's inputs, rounded: a few rows by each thread for itself, more of them once, by
// all threads, before anything is multiplied.
#pragma once
#include <algorithm>
#include <atomic>
#include <vector>

#include "context.hpp"

namespace tiedlm {

constexpr int64_t ROUNDED_ROWS = 4;  // a piece
constexpr int64_t FEW_ROWS = 8;  // to bring them from one core to another takes longer than to round
constexpr int64_t STREAMING_ROWS = 32;  // so few, and weights are worth asking for ahead of use
constexpr int64_t LARGEST_GROUP_COUNT = 2;  // of a block

// Where the rounded rows are kept until the thread's next product.
inline Rounded make_room(const Codes& weight, int64_t num_rows, int64_t block_bytes) {
    static thread_local std::vector<uint8_t> room;
    const int64_t numbers = weight.blocks() * num_rows;
    const int64_t needed = numbers * (block_bytes + 4 + 4 * LARGEST_GROUP_COUNT) + LINE;
    if (int64_t(room.size()) < needed) room.resize(size_t(needed));
    uint8_t* at = room.data() + LINE - reinterpret_cast<uintptr_t>(room.data()) % LINE;
    auto* scales = reinterpret_cast<float*>(at + numbers * block_bytes);
    return {at, scales, reinterpret_cast<int32_t*>(scales + numbers), num_rows};
}

inline int64_t block_bytes(const Context& context, bool is_wide) {
    return is_wide ? context.quantised.wide_bytes : context.quantised.narrow_bytes;
}

// By all threads
inline Rounded round_rows(Context& context, const float* x, const Codes& weight, int64_t num_rows,
                          bool is_wide) {
    const Rounded inputs = make_room(weight, num_rows, block_bytes(context, is_wide));
    const QuantLinear job{weight, inputs, nullptr, nullptr, is_wide};
    const int64_t to_round = (num_rows + ROUNDED_ROWS - 1) / ROUNDED_ROWS;
    run(context, to_round, OPERATIONS_PER_EXP * num_rows * weight.width, [&](int64_t i) {
        const int64_t first = i * ROUNDED_ROWS;
        context.quantised.round(job, x, {first, std::min(first + ROUNDED_ROWS, num_rows)});
    });
    return inputs;
}

class Rounding {
  public:
    // x (N,C), for products with any matrix like this one
    Rounding(Context& context, const float* x, const Codes& weight, int64_t num_rows, bool is_wide)
        : context(context), x(x), weight(weight), num_rows(num_rows), is_wide(is_wide) {
        static std::atomic<uint64_t> newest{0};
        number = newest.fetch_add(1) + 1;
        if (!is_few()) shared = round_rows(context, x, weight, num_rows, is_wide);
    }

    // For the thread that calls it, until its next product
    Rounded inputs() const {
        if (!is_few()) return shared;
        static thread_local uint64_t rounded = 0;
        static thread_local Rounded own;
        if (rounded != number) {
            own = make_room(weight, num_rows, block_bytes(context, is_wide));
            context.quantised.round({weight, own, nullptr, nullptr, is_wide}, x, {0, num_rows});
            rounded = number;
        }
        return own;
    }

  private:
    bool is_few() const { return num_rows <= FEW_ROWS; }

    Context& context;
    const float* x;
    const Codes weight;
    const int64_t num_rows;
    const bool is_wide;
    uint64_t number;  // of all in this process
    Rounded shared{};
};

}  // namespace tiedlm
