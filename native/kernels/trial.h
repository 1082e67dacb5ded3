// trial.h: one operation through ggml's CPU back end and our kernels, to look at its numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rim::kernels {

// As in a file: `rows` rows of the type.
struct TrialWeights {
    std::string type;
    const uint8_t * bytes;
    int64_t n_bytes, rows;
};

// Of each of the weights [n_tokens][rows]: their product with the same n_tokens rows of `inner` values, in one graph, one after the other as
// queries, keys and values of a layer are: what a product gives is rotated before the next one (as far as it has heads of 32 values).
// Throws Error option for shapes and types without a kernel, unsupported where no kernel is active, backend.
std::vector<std::vector<float>> trial_products(const std::vector<TrialWeights> & weights, int64_t inner, const float * values,
                                               int64_t n_tokens, int32_t n_threads);

// [rows][n]: every row of values[rows][n] divided by the root of its mean square and eps, times weights[n]. Throws Error as above.
std::vector<float> trial_norm(const float * values, const float * weights, int64_t rows, int64_t n, float eps, int32_t n_threads);

// [rows][n]: gate[rows][n] / (1 + exp(-gate)) * up[rows][n]. Throws Error as above.
std::vector<float> trial_swiglu(const float * gate, const float * up, int64_t rows, int64_t n, int32_t n_threads);

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
