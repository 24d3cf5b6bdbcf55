// The entry points that a recorded step may call: program.cpp lists them.
#pragma once
#include <cstdint>

// One of the matrices that the same x meets: weight (O,C), bias (O,) or null, out (N,O), O; O is 0
// where there are fewer of them.
#define TIEDLM_PRODUCT(I) \
    const void *weight##I, const float *bias##I, float *out##I, int64_t num_outputs##I
// ... as a list of tiedlm::Product
#define TIEDLM_PRODUCTS                                                                    \
    {weight0, bias0, out0, num_outputs0}, {weight1, bias1, out1, num_outputs1}, {          \
        weight2, bias2, out2, num_outputs2                                                 \
    }

extern "C" {

void tiedlm_linear(void* handle, const float* x, int matrix, int64_t num_rows, int64_t width,
                   TIEDLM_PRODUCT(0), TIEDLM_PRODUCT(1), TIEDLM_PRODUCT(2));
// kind: the numbers of CodeKind, of all its matrices
void tiedlm_quantised_linear(void* handle, const float* x, const int32_t* kind, int is_wide,
                             int64_t num_rows, int64_t width, TIEDLM_PRODUCT(0), TIEDLM_PRODUCT(1),
                             TIEDLM_PRODUCT(2));
void tiedlm_attend(void* handle, const float* q, const float* keys, const float* values, float* out,
                   const int64_t* rows, int64_t num_rows, const int64_t* pages, int64_t num_heads,
                   int64_t num_kv_heads, int64_t head_dim, int64_t page_size, const float* slopes,
                   int is_coarse, float scale, int64_t window, float cap);
void tiedlm_gate(void* handle, int gate, float* gated, const float* up, int64_t size);
void tiedlm_normalize(void* handle, int has_mean, const float* x, const float* weight,
                      int64_t num_weights, const float* bias, const float* onto, float eps,
                      float* out, int64_t num_rows, int64_t width);
void tiedlm_add(void* handle, float* x, const float* onto, float by, int64_t size);
void tiedlm_clamp(void* handle, float limit, float* x, int64_t size);
void tiedlm_angles(void* handle, const int64_t* positions, const float* frequencies, float scale,
                   float* cosines, float* sines, int64_t num_tokens, int64_t half);
void tiedlm_rotate(void* handle, int pairs, const float* cosines, const float* sines, float* x,
                   int64_t num_tokens, int64_t num_heads, int64_t head_dim, int64_t half);
void tiedlm_columns(void* handle, const float* x, float* out, int64_t num_rows, int64_t stride,
                    int64_t first, int64_t width, int64_t step, int64_t count);
void tiedlm_write(void* handle, const float* k, const float* v, const int64_t* slots, float* keys,
                  float* values, int64_t num_tokens, int64_t num_kv_heads, int64_t head_dim,
                  int64_t page_size);
}
