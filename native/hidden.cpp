// hidden.cpp: copies result_norm out of the graph.
#include "hidden.h"

#include <cstring>

namespace rim {

bool HiddenTap::callback(ggml_tensor * tensor, bool ask, void * tap) {
    auto * self = static_cast<HiddenTap *>(tap);
    if (!self->armed_) {
        return !ask;
    }
    if (ask) {
        return std::strcmp(tensor->name, "result_norm") == 0;
    }
    self->take(tensor);
    return true;  // go on computing
}

void HiddenTap::take(ggml_tensor * tensor) {
    const bool expected = tensor->type == GGML_TYPE_F32 && static_cast<size_t>(tensor->ne[0]) == n_embd_ &&
                          tensor->ne[2] == 1 && tensor->ne[3] == 1 && ggml_is_contiguous(tensor);
    if (!expected) {
        usable_ = false;
        return;
    }
    const size_t start = rows_.size();
    const size_t count = n_embd_ * static_cast<size_t>(tensor->ne[1]);
    rows_.resize(start + count);
    if (count > 0) {
        ggml_backend_tensor_get(tensor, rows_.data() + start, 0, count * sizeof(float));
    }
}

}  // namespace rim
