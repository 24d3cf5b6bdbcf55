// What Python calls for matrices of codes.
#include "quantised.hpp"

#include "entries.hpp"

#include <algorithm>

#include "half.hpp"
#include "rounding.hpp"

using namespace tiedlm;

namespace {

// How a job's weights are cut: bytes a piece, and pieces a thread, so that threads end together.
struct Cut {
    int64_t least, most, pieces_a_thread;
};

// What comes from memory comes the faster the longer it goes on.
constexpr Cut STREAMED{32 << 10, 1 << 20, 2}, MULTIPLIED{16 << 10, 128 << 10, 6};

// all: every matrix of a job, as if they were one
int64_t tiles_a_piece(const Codes& all, int threads, const Cut& cut) {
    const int64_t share = all.tiles() * all.tile_bytes() / (threads * cut.pieces_a_thread);
    const int64_t bytes = std::min(std::max(share, cut.least), cut.most);
    return round_up(bytes / all.tile_bytes() + 1, 2);
}

float scale_of(const Codes& w, const uint8_t* scales, const uint8_t* multiples, int64_t group,
               int64_t output) {
    const int64_t shared = group / w.kind.groups_per_scale;
    const float scale = float_of_half(scales + 2 * (shared * TILE + output));
    if (w.kind.groups_per_scale == 1) return scale;
    return scale * float(int8_t(multiples[group * TILE + output]));
}

// As weights/quant.py has it: the product is exact, an offset is added to it rounded once.
void look_up(const Codes& w, int64_t row, float* out) {
    const uint8_t* tile = w.data + row / TILE * w.tile_bytes();
    const int64_t output = row % TILE;
    float scale = 0.0f, offset = 0.0f;
    for (int64_t k = 0; k < w.width; ++k) {
        if (k % w.kind.group == 0) {
            const int64_t group = k / w.kind.group;
            scale = scale_of(w, tile, tile + w.multiples(), group, output);
            if (w.kind.has_offset)
                offset = scale_of(w, tile + w.offsets(), tile + w.offset_multiples(), group, output);
        }
        const int64_t block = k / BLOCK_OF_INPUTS, q = k % BLOCK_OF_INPUTS / 4;
        const uint8_t* codes = tile + w.codes() + block * w.kind.bits * LINE;
        const int code = code_of(w.kind.bits, codes, int(q), int(4 * output + k % 4));
        const float value = float(code - w.kind.zero) * scale;
        out[k] = w.kind.has_offset ? value + offset : value;
    }
}

}  // namespace

extern "C" {

void tiedlm_quantised_linear(void* handle, const float* x, const int32_t* kind, int is_wide,
                             int64_t num_rows, int64_t width, TIEDLM_PRODUCT(0), TIEDLM_PRODUCT(1),
                             TIEDLM_PRODUCT(2)) {
    Context& context = *static_cast<Context*>(handle);
    const Quantised& kernels = context.quantised;
    if (num_rows == 0) return;
    const Products products{TIEDLM_PRODUCTS};
    const auto codes = [&](const void* data, int64_t num_outputs) {
        return Codes{static_cast<const uint8_t*>(data),
                     {kind[0], kind[1], kind[2], kind[3], kind[4]},
                     num_outputs,
                     width};
    };
    const Codes all = codes(nullptr, num_outputs0 + num_outputs1 + num_outputs2);
    const Rounding rounding(context, x, all, num_rows, is_wide != 0);
    const bool is_streaming = num_rows <= STREAMING_ROWS;
    const int64_t tiles =
        tiles_a_piece(all, context.pool.threads(), is_streaming ? STREAMED : MULTIPLIED);
    const int64_t stripes = (num_rows + MAX_PASS_ROWS - 1) / MAX_PASS_ROWS;
    const auto pieces = [&](const Product& product) {
        return stripes * ((codes(nullptr, product.num_outputs).tiles() + tiles - 1) / tiles);
    };
    run_all(context, products, 2 * num_rows * width, pieces, [&](const Product& p, int64_t i) {
        const QuantLinear job{codes(p.weight, p.num_outputs), rounding.inputs(), p.bias, p.out,
                              is_wide != 0};
        const int64_t n = i % stripes * MAX_PASS_ROWS, t = i / stripes * tiles;
        kernels.multiply(job, {n, std::min(n + MAX_PASS_ROWS, num_rows)},
                         {t, std::min(t + tiles, job.weight.tiles())}, is_streaming);
    });
}

// rows (N,) of the matrix -> out (N,C). Returns how many there are: up to the first that is none.
int64_t tiedlm_quantised_lookup(const void* data, const int32_t* kind, const int64_t* rows,
                                float* out, int64_t num_rows, int64_t width, int64_t num_outputs) {
    const Codes weight{static_cast<const uint8_t*>(data),
                       {kind[0], kind[1], kind[2], kind[3], kind[4]},
                       num_outputs,
                       width};
    for (int64_t n = 0; n < num_rows; ++n) {
        if (rows[n] < 0 || rows[n] >= num_outputs) return n;
        look_up(weight, rows[n], out + n * width);
    }
    return num_rows;
}

}  // extern "C"
