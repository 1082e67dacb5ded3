// trial.h: one operation through ggml's CPU back end and our kernels, to look at its numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rim::kernels {

// [n_tokens][rows]: weights as in a file (`rows` rows of `inner` values of the type) times n_tokens rows of `inner` values.
// Throws Error option for shapes and types without a kernel, unsupported where no kernel is active, backend.
std::vector<float> trial_product(const std::string & type, const uint8_t * weights, int64_t n_weight_bytes, int64_t rows, int64_t inner,
                                 const float * values, int64_t n_tokens, int32_t n_threads);

// [rows][n]: every row of values[rows][n] divided by the root of its mean square and eps, times weights[n]. Throws Error as above.
std::vector<float> trial_norm(const float * values, const float * weights, int64_t rows, int64_t n, float eps, int32_t n_threads);

struct AttentionShape {
    int64_t n_tokens, n_keys, n_heads, n_groups, key_size, value_size;
    float scale;
    bool half_precision;  // keys and values
};

// [n_tokens][n_heads][value_size] of queries [n_tokens][n_heads][key_size], keys [n_keys][n_groups][key_size], values
// [n_keys][n_groups][value_size] and a mask [n_tokens][n_keys] that is added to the scores. Throws Error as above.
std::vector<float> trial_attention(const AttentionShape & shape, const float * queries, const float * keys, const float * values,
                                   const float * mask, int32_t n_threads);

}  // namespace rim::kernels
