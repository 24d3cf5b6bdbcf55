// The tied matrix as the projection meets it: any of its rows, some of them at a time.
#pragma once
#include <algorithm>
#include <optional>
#include <vector>

#include "rounding.hpp"

namespace tiedlm {

// What a logit is after the product: times a scale, then within (-cap, cap). 1 and 0: as it was.
struct Shaping {
    float scale, cap;
};

class Table {
  public:
    // x (N,C), table (V,C): of floats, or of codes where `kind` is not null
    Table(Context& context, const float* x, const void* table, Matrix matrix, const int32_t* kind,
          int64_t num_rows, int64_t width, int64_t vocab_size, Shaping shaping)
        : context(context), x(x), table(static_cast<const uint8_t*>(table)), matrix(matrix),
          num_rows(num_rows), width(width), vocab_size(vocab_size), shaping(shaping) {
        if (kind == nullptr) return;
        codes = {this->table, {kind[0], kind[1], kind[2], kind[3], kind[4]}, vocab_size, width};
        rounding.emplace(context, x, codes, num_rows, true);
    }

    // Logits of rows of one stripe, at most BLOCK outputs from a multiple of TILE on
    // -> (rows,outputs), the thread's until it asks again. The bits are those of all at once.
    const float* logits(Range rows, Range outputs) const {
        static thread_local std::vector<float> room(size_t(STRIPE_OF_FLOATS * BLOCK));
        const int64_t count = outputs.last - outputs.first;
        float* out = room.data();
        if (!rounding) {
            multiply_floats(rows, outputs, out);
        } else {
            multiply_codes(rows, outputs, out);
            out += rows.first % MAX_PASS_ROWS * count;
        }
        const int64_t size = (rows.last - rows.first) * count;
        if (shaping.scale != 1.0f)
            for (int64_t i = 0; i < size; ++i) out[i] *= shaping.scale;
        if (shaping.cap != 0.0f) context.kernels.cap(shaping.cap, out, size);
        return out;
    }

    int64_t stripe() const { return rounding ? MAX_PASS_ROWS : STRIPE_OF_FLOATS; }
    int64_t operations() const { return 2 * num_rows * width * vocab_size; }

    Context& context;

  private:
    static constexpr int64_t STRIPE_OF_FLOATS = 96;   // a multiple of every register tile's
    static constexpr int64_t PIECE_BYTES = 96 << 10;  // of weights: they stay in the cache

    void multiply_floats(Range rows, Range outputs, float* out) const {
        const int64_t bytes = width * (matrix == Matrix::FLOAT32 ? 4 : 2);
        const int64_t count = outputs.last - outputs.first;
        const Linear job{x + rows.first * width, table + outputs.first * bytes, nullptr, out,
                         rows.last - rows.first, width,                         count};
        const int64_t step = round_up(PIECE_BYTES / bytes + 1, context.kernels.outputs);
        for (int64_t o = 0; o < count; o += step)
            context.kernels.linear(matrix, job, {0, job.num_rows}, {o, std::min(o + step, count)});
    }

    // As if there were no other stripe, and no other outputs.
    void multiply_codes(Range rows, Range outputs, float* out) const {
        const int64_t first = rows.first / MAX_PASS_ROWS * MAX_PASS_ROWS;
        const int64_t blocks = codes.blocks(), at = first * blocks;
        const Rounded inputs = rounding->inputs();
        const Rounded stripe{inputs.values + at * context.quantised.wide_bytes, inputs.scales + at,
                             inputs.corrections + first * codes.groups(),
                             std::min(MAX_PASS_ROWS, num_rows - first)};
        const Codes some{codes.data + outputs.first / TILE * codes.tile_bytes(), codes.kind,
                         outputs.last - outputs.first, width};
        const QuantLinear job{some, stripe, nullptr, out, true};
        context.quantised.multiply(job, {rows.first - first, rows.last - first}, {0, some.tiles()},
                                   num_rows <= STREAMING_ROWS);
    }

    const float* x;
    const uint8_t* table;
    Matrix matrix;
    int64_t num_rows, width, vocab_size;
    Shaping shaping;
    Codes codes{};
    std::optional<Rounding> rounding;  // of codes
};

}  // namespace tiedlm
