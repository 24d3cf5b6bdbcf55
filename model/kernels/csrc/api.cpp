// What Python calls through ctypes: each function cuts a job into pieces for the pool.
#include <algorithm>
#include <cstring>
#include <vector>

#include "context.hpp"
#include "entries.hpp"

using namespace tiedlm;

namespace {

constexpr int64_t PIECE_BYTES = 96 << 10;    // of weights: they stay in the second-level cache
constexpr int64_t PIECE_ROWS = 96;           // a multiple of every register tile's
constexpr int64_t GATE_ELEMENTS = 16 << 10;  // a piece
constexpr int64_t OPERATIONS_PER_CACHED = 8;  // two products, and reading it from memory takes longer

bool is_supported(const Kernels& kernels) {
#ifdef TIEDLM_X86
    if (&kernels == &avx512) return __builtin_cpu_supports("avx512f");
    if (&kernels == &avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef TIEDLM_NEON
    if (&kernels == &neon) return true;
#endif
    return &kernels == &portable;
}

// AVX-512 came before its byte products: such a processor has AVX2's.
const Quantised& quantised_for([[maybe_unused]] const Kernels& kernels) {
#ifdef TIEDLM_X86
    const bool has_vnni =
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
    if (&kernels == &avx512 && has_vnni) return quantised_vnni;
    if (&kernels != &portable && __builtin_cpu_supports("f16c")) return quantised_avx2;
#endif
#ifdef TIEDLM_DOT_PRODUCT
    if (&kernels == &neon && has_dot_product()) return quantised_neon;
#endif
    return quantised_portable;
}

const Kernels* const ALL[] = {
#ifdef TIEDLM_X86
    &avx512, &avx2,
#endif
#ifdef TIEDLM_NEON
    &neon,
#endif
    &portable};

// Items of `attend`, in the order of the tokens. rows (B,4): see tiedlm_attend.
std::vector<Item> cut(const Attention& job, const int64_t* rows, int64_t num_rows) {
    const int64_t group = job.num_heads / job.num_kv_heads;
    const int64_t heads = std::min<int64_t>(group, MAX_QUERIES);
    const int64_t tokens = std::max<int64_t>(1, MAX_QUERIES / group);
    std::vector<Item> items;
    for (const int64_t* row = rows; row < rows + 4 * num_rows; row += 4)
        for (int64_t t = 0; t < row[2]; t += tokens)
            for (int64_t kv = 0; kv < job.num_kv_heads; ++kv)
                for (int64_t h = 0; h < group; h += heads)
                    items.push_back({row[0] + t, row[1] + t, row[3], kv * group + h,
                                     int32_t(std::min(tokens, row[2] - t)),
                                     int32_t(std::min(heads, group - h))});
    return items;
}

int64_t operations(const Attention& job, const std::vector<Item>& items) {
    int64_t pairs = 0;
    for (const Item& item : items) {
        const int64_t keys = item.position + item.num_tokens;
        const int64_t seen = job.window > 0 ? std::min(keys, job.window) : keys;
        pairs += seen * item.num_tokens * item.num_heads;
    }
    return OPERATIONS_PER_CACHED * pairs * job.head_dim;
}

const Kernels& kernels_of(void* handle) { return static_cast<Context*>(handle)->kernels; }

}  // namespace

extern "C" {

// name: an instruction set, or "" for the best there is; null where this processor lacks it
void* tiedlm_open(const char* name, int threads) {
    for (const Kernels* kernels : ALL)
        if (is_supported(*kernels) && (*name == 0 || std::strcmp(name, kernels->name) == 0))
            return new Context{*kernels, quantised_for(*kernels), Pool(threads)};
    return nullptr;
}

void tiedlm_close(void* context) { delete static_cast<Context*>(context); }

const char* tiedlm_name(void* context) { return kernels_of(context).name; }

void tiedlm_linear(void* handle, const float* x, int matrix, int64_t num_rows, int64_t width,
                   TIEDLM_PRODUCT(0), TIEDLM_PRODUCT(1), TIEDLM_PRODUCT(2)) {
    Context& context = *static_cast<Context*>(handle);
    const Kernels& kernels = context.kernels;
    if (num_rows == 0) return;
    const int64_t row_bytes = width * (Matrix(matrix) == Matrix::FLOAT32 ? 4 : 2);
    const int64_t outputs = round_up(PIECE_BYTES / row_bytes + 1, kernels.outputs);
    const int64_t rows = num_rows < 2 * PIECE_ROWS ? num_rows : PIECE_ROWS;
    const int64_t row_pieces = (num_rows + rows - 1) / rows;
    const Products products{TIEDLM_PRODUCTS};
    const auto pieces = [&](const Product& product) {
        return row_pieces * ((product.num_outputs + outputs - 1) / outputs);
    };
    run_all(context, products, 2 * num_rows * width, pieces, [&](const Product& p, int64_t i) {
        const Linear job{x, p.weight, p.bias, p.out, num_rows, width, p.num_outputs};
        const int64_t n = i % row_pieces * rows, o = i / row_pieces * outputs;
        kernels.linear(Matrix(matrix), job, {n, std::min(n + rows, num_rows)},
                       {o, std::min(o + outputs, p.num_outputs)});
    });
}

// rows (B,4): first token of N, position of that token, number of tokens, where its pages begin
void tiedlm_attend(void* handle, const float* q, const float* keys, const float* values, float* out,
                   const int64_t* rows, int64_t num_rows, const int64_t* pages, int64_t num_heads,
                   int64_t num_kv_heads, int64_t head_dim, int64_t page_size,
                   const float* slopes, int is_coarse, float scale, int64_t window, float cap) {
    Context& context = *static_cast<Context*>(handle);
    const Kernels& kernels = context.kernels;
    const Attention job{q,         keys,         values,   out,       pages,
                        num_heads, num_kv_heads, head_dim, page_size, slopes,
                        is_coarse != 0, scale,   window,   cap};
    const std::vector<Item> items = cut(job, rows, num_rows);
    run(context, int64_t(items.size()), operations(job, items), [&](int64_t i) {
        static thread_local std::vector<float> scratch;
        scratch.resize(std::max(scratch.size(), size_t(attention_scratch(job))));
        kernels.attend(job, items[size_t(i)], scratch.data());
    });
}

void tiedlm_gate(void* handle, int gate, float* gated, const float* up, int64_t size) {
    Context& context = *static_cast<Context*>(handle);
    const int64_t count = (size + GATE_ELEMENTS - 1) / GATE_ELEMENTS;
    run(context, count, OPERATIONS_PER_EXP * size, [&](int64_t i) {
        const int64_t at = i * GATE_ELEMENTS;
        context.kernels.gate(Gate(gate), gated + at, up == nullptr ? nullptr : up + at,
                             std::min(GATE_ELEMENTS, size - at));
    });
}

void tiedlm_cap(void* handle, float limit, float* x, int64_t size) {
    Context& context = *static_cast<Context*>(handle);
    const int64_t count = (size + GATE_ELEMENTS - 1) / GATE_ELEMENTS;
    run(context, count, OPERATIONS_PER_EXP * size, [&](int64_t i) {
        const int64_t at = i * GATE_ELEMENTS;
        context.kernels.cap(limit, x + at, std::min(GATE_ELEMENTS, size - at));
    });
}

}  // extern "C"
