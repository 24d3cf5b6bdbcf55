// A quantised product's inputs: rounded once, by all threads, before anything is multiplied.
#pragma once
#include <algorithm>
#include <vector>

#include "context.hpp"

namespace tiedlm {

constexpr int64_t ROUNDED_ROWS = 16;        // a piece
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

// x (N,C) for products with any matrix like this one
inline Rounded round_rows(Context& context, const float* x, const Codes& weight, int64_t num_rows,
                          bool is_wide) {
    const Quantised& kernels = context.quantised;
    const int64_t block_bytes = is_wide ? kernels.wide_bytes : kernels.narrow_bytes;
    const Rounded inputs = make_room(weight, num_rows, block_bytes);
    const QuantLinear job{weight, inputs, nullptr, nullptr, is_wide};
    const int64_t to_round = (num_rows + ROUNDED_ROWS - 1) / ROUNDED_ROWS;
    run(context, to_round, OPERATIONS_PER_EXP * num_rows * weight.width, [&](int64_t i) {
        kernels.round(job, x, {i * ROUNDED_ROWS, std::min((i + 1) * ROUNDED_ROWS, num_rows)});
    });
    return inputs;
}

}  // namespace tiedlm
