#include "norm.h"

#include <algorithm>
#include <cstring>

#include <ggml.h>

#include "chunks.h"
#include "ggml_private.h"
#include "redirect.h"
#include "rows.h"

namespace rim::kernels {

namespace {

using namespace ggml_private;

// Row i of plane j of volume k; a dimension that is shorter is repeated.
template <class Float>
Float * row_of(const ggml_tensor * tensor, int64_t i, int64_t j, int64_t k) {
    return reinterpret_cast<Float *>(static_cast<char *>(tensor->data) + static_cast<size_t>(i % tensor->ne[1]) * tensor->nb[1] +
                                     static_cast<size_t>(j % tensor->ne[2]) * tensor->nb[2] +
                                     static_cast<size_t>(k % tensor->ne[3]) * tensor->nb[3]);
}

// ggml-cpu/ops.cpp: ggml_compute_forward_rms_norm_mul_fused(); ggml has found that all is F32, and values lie side by side.
void compute_norm(const ComputeParams * params, ggml_tensor * norm, ggml_tensor * product) {
    const ggml_tensor * const values = norm->src[0];
    const ggml_tensor * const weights = product->src[0] == norm ? product->src[1] : product->src[0];
    GGML_ASSERT(ggml_are_same_shape(values, product) && values->nb[0] == sizeof(float));
    float eps;
    memcpy(&eps, norm->op_params, sizeof eps);
    static const RowKernel & kernel = *row_kernel();
    // As ggml's sum before has shared them out: each thread the rows that it has just written.
    const int64_t share = share_of(values->ne[1], params->n_threads);
    const int64_t begin = share * params->thread, end = std::min(begin + share, values->ne[1]);
    for (int64_t k = 0; k < values->ne[3]; ++k) {
        for (int64_t j = 0; j < values->ne[2]; ++j) {
            for (int64_t i = begin; i < end; ++i) {
                kernel.norm(row_of<const float>(values, i, j, k), row_of<const float>(weights, i, j, k), row_of<float>(product, i, j, k),
                            values->ne[0], eps);
            }
        }
    }
}

}  // namespace

bool replace_norm(const void * inside) {
    return redirect(inside, norm_symbol, reinterpret_cast<void *>(compute_norm));
}

}  // namespace rim::kernels
