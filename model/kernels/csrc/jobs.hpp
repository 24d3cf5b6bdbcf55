// What the operators are asked, and the table of functions that each instruction set fills in.
//
// All arrays are dense, row-major and float32 unless said otherwise. No function here allocates,
// locks or knows of threads: api.cpp cuts a job into pieces, and pieces may run in any order on any
// thread, because every element of a result is computed by one fixed order of operations.
#pragma once
#include <cstdint>

namespace tiedlm {

constexpr int LANES = 16;      // every sum runs in 16 interleaved lanes, whatever the registers
constexpr int MAX_QUERIES = 48;  // of one attention item: they share the reading of a block

enum class Matrix : int32_t { FLOAT32 = 0, BFLOAT16 = 1 };
enum class Gate : int32_t { SILU = 0, GELU_TANH = 1, GELU = 2, RELU = 3 };

// x (N,C), weight (O,C) float32 or bfloat16, bias (O,) or null -> out (N,O)
struct Linear {
    const float* x;
    const void* weight;
    const float* bias;
    float* out;
    int64_t num_rows, width, num_outputs;
};

struct Range {
    int64_t first, last;  // [first, last)
};

// q and out (N,H,D), keys (P,K,D,page_size), values (P,K,page_size,D). Pages are those of all rows,
// in turn.
struct Attention {
    const float *q, *keys, *values;
    float* out;
    const int64_t* pages;
    int64_t num_heads, num_kv_heads, head_dim, page_size;
    const float* slopes;  // (H,), times its distance a key's score is lessened; null: nothing
    bool is_coarse;       // by Falcon's rounded biases instead: see coarse_bias
    float scale;
    int64_t window;  // keys a query may see, itself included; 0: all before it
    float cap;       // no score leaves (-cap, cap); 0: no cap
};

// Up to MAX_QUERIES queries that share one key-value head: its heads of consecutive tokens, or some
// of its heads.
struct Item {
    int64_t token;     // the first, of N
    int64_t position;  // its place in its sequence
    int64_t pages;     // where its row's pages begin in Attention::pages
    int64_t head;      // the first, of H
    int32_t num_tokens, num_heads;
};

// log-softmax of x is (x - high) - low: their sum is the logarithm of the sum of exponentials.
struct LogSum {
    float high, low;
};

constexpr int64_t BLOCK = 1024;  // elements whose exponentials are summed before the next block's

// Of up to BLOCK elements of a row: sums of e^(x - largest), and of that times (x - largest).
struct Summary {
    float largest;
    double sum, moment;
};

// Passes over one row of V elements.
struct Distributions {
    float (*largest)(const float* row, int64_t size);
    // out (size,) = row / divisor
    void (*divide)(const float* row, int64_t size, float divisor, float* out);
    // weights (size,) = e^(row / divisor - shift), may be null; sums: one a BLOCK. shift: the
    // largest of row / divisor.
    void (*exponentials)(const float* row, int64_t size, float divisor, float shift, float* weights,
                         double* sums);
    // The moment is 0 where it is not wanted.
    Summary (*summarise)(const float* block, int64_t size, bool has_moment);
    void (*log_softmax)(const float* row, int64_t size, LogSum sum, float* out);
    // How many elements are above `high`; those from `low` to `high` are counted onto num_near.
    int64_t (*num_above)(const float* row, int64_t size, float low, float high, int64_t* num_near);
    // The sum of the elements that are at least `floor`, which is above 0; in float32, so to some
    // size / 64 roundings
    float (*mass_from)(const float* row, int64_t size, float floor);
    bool (*is_finite)(const float* row, int64_t size);
    // How many elements come before element `id`: have a larger log-probability, or as large a one
    // and a lower id
    int64_t (*num_before)(const float* row, int64_t size, LogSum sum, int64_t id);
    // ids (size,) of the elements that are at least `floor`, ascending -> how many
    int64_t (*at_least)(const float* row, int64_t size, float floor, int32_t* ids);
    // out: the largest of each 64 elements
    void (*maxima)(const float* row, int64_t size, float* out);
};

constexpr int64_t MAXIMA = 64;

// x, out and onto (M,W), onto may be null; row r has row r modulo G of weight (G,W); bias (W,) or
// null. out = (x - mean) / sqrt(mean square distance + eps) * weight + bias + onto, mean 0 for RMS.
struct Norm {
    const float *x, *weight, *bias, *onto;
    float* out;
    int64_t num_weights, width;
    float eps;
    bool has_mean;
};

enum class Pairs : int32_t { HALVES = 0, NEIGHBOURS = 1 };  // (0,R/2)(1,R/2+1).. or (0,1)(2,3)..

// x (N,H,D) in place, of which the first R = 2*half of D turn; cosines and sines (N,half)
struct Rotation {
    float* x;
    const float *cosines, *sines;
    int64_t num_heads, head_dim, half;
    Pairs pairs;
};

struct Rowwise {
    void (*normalize)(const Norm&, Range rows);
    // x (size,) = x * by + onto, onto may be null
    void (*add)(float* x, const float* onto, float by, int64_t size);
    void (*clamp)(float limit, float* x, int64_t size);
    void (*rotate)(const Rotation&, Range tokens);
};

struct Kernels {
    const char* name;
    int rows, outputs;  // of the register tile
    void (*linear)(Matrix, const Linear&, Range rows, Range outputs);
    // scratch: attention_scratch() floats
    void (*attend)(const Attention&, const Item&, float* scratch);
    // gated (size,) = gate(gated) * up, up may be null for 1
    void (*gate)(Gate, float* gated, const float* up, int64_t size);
    // x (size,) = limit * tanh(x / limit)
    void (*cap)(float limit, float* x, int64_t size);
    Distributions distributions;
    Rowwise rowwise;
};

extern const Kernels portable;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TIEDLM_X86 1  // the vector files select their instructions by GCC's target pragma
extern const Kernels avx2, avx512;
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
#define TIEDLM_NEON 1
#if defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__)
#define TIEDLM_DOT_PRODUCT 1  // compiled for, or by GCC's target pragma
#endif
extern const Kernels neon;
#endif

// Static: a copy compiled for one instruction set must not become everyone's.
static inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

static inline float logprob(LogSum sum, float x) { return (x - sum.high) - sum.low; }

static inline int64_t attention_scratch(const Attention& a) {
    const int64_t width = round_up(a.head_dim, LANES);
    const int64_t scores = 4 * round_up(a.page_size, LANES);  // of a query in a block
    return MAX_QUERIES * (2 * width + LANES + 1 + scores);
}

}  // namespace tiedlm
