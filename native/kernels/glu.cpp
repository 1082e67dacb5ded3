#include "glu.h"

#include <algorithm>

#include "chunks.h"
#include "kernel.h"
#include "layout.h"
#include "rows.h"

namespace rim::kernels {

bool is_our_glu(const ggml_tensor * op) noexcept {
    if (op->op != GGML_OP_GLU || ggml_get_glu_op(op) != GGML_GLU_OP_SWIGLU || !op->src[1] || !row_kernel()) {
        return false;
    }
    const auto is_matrix = [op](const ggml_tensor * tensor) {
        return tensor->type == GGML_TYPE_F32 && tensor->nb[0] == sizeof(float) && ggml_are_same_shape(tensor, op) && ggml_is_matrix(tensor);
    };
    return is_matrix(op->src[0]) && is_matrix(op->src[1]) && is_matrix(op);
}

void compute_glu(const ggml_private::ComputeParams & params, ggml_tensor * op) {
    static const RowKernel & kernel = *row_kernel();
    int64_t row = 0, end_row = op->ne[1], column = 0, end_column = op->ne[0];
    if (end_row <= few_tokens) {
        const int64_t share = share_of(tile_count(op->ne[0]), params.n_threads) * tile_rows;
        column = std::min(share * params.thread, op->ne[0]);
        end_column = std::min(column + share, op->ne[0]);
    } else {
        row = op->ne[1] * params.thread / params.n_threads;
        end_row = op->ne[1] * (params.thread + 1) / params.n_threads;
    }
    const auto at = [column](const ggml_tensor * tensor, int64_t index) {
        return reinterpret_cast<float *>(static_cast<char *>(tensor->data) + static_cast<size_t>(index) * tensor->nb[1]) + column;
    };
    for (; row < end_row; ++row) {
        kernel.swiglu(at(op->src[0], row), at(op->src[1], row), at(op, row), end_column - column);
    }
}

}  // namespace rim::kernels
