// attention.cpp: which attention is ours, and how it is shared out between threads.
#include "attention.h"

#include <algorithm>
#include <cstring>

namespace rim::kernels {

namespace {

constexpr int64_t most_rows = 96;  // of queries in a task: their sums stay in L2
constexpr int64_t most_heads = 32;
constexpr int64_t largest_head = 256;
constexpr size_t work_alignment = 64;

struct Shape {
    const ggml_tensor *q, *k, *v, *mask;
    int64_t group;            // query heads that share a key/value head
    int64_t tokens_per_task;

    explicit Shape(const ggml_tensor * op)
        : q(op->src[0]), k(op->src[1]), v(op->src[2]), mask(op->src[3]), group(q->ne[2] / k->ne[2]),
          tokens_per_task(std::max<int64_t>(1, most_rows / group)) {}

    int64_t tasks_per_head() const { return (q->ne[1] + tokens_per_task - 1) / tokens_per_task; }
    int64_t tasks() const { return tasks_per_head() * k->ne[2] * q->ne[3]; }

    size_t work_values() const {
        const int64_t rows = std::min(tokens_per_task, q->ne[1]) * group;
        return (attention_kernel()->work_values(k->ne[0], v->ne[0], rows) + 15) / 16 * 16;
    }
};

float parameter(const ggml_tensor * op, int index) {
    float value;
    memcpy(&value, op->op_params + index, sizeof value);
    return value;
}

}  // namespace

bool is_our_attention(const ggml_tensor * op) {
    if (op->op != GGML_OP_FLASH_ATTN_EXT || !attention_kernel()) {
        return false;
    }
    const ggml_tensor *const q = op->src[0], *const k = op->src[1], *const v = op->src[2], *const mask = op->src[3];
    const bool plain = parameter(op, 1) == 0.0f && parameter(op, 2) == 0.0f && !op->src[4];
    const bool types = q->type == GGML_TYPE_F32 && (k->type == GGML_TYPE_F16 || k->type == GGML_TYPE_F32) && v->type == k->type;
    const bool sizes = k->ne[0] % 16 == 0 && v->ne[0] % 16 == 0 && k->ne[0] <= largest_head && v->ne[0] <= largest_head &&
                       q->ne[2] % k->ne[2] == 0 && v->ne[2] == k->ne[2] && q->ne[2] / k->ne[2] <= most_heads && k->ne[3] == q->ne[3] &&
                       v->ne[3] == q->ne[3];
    const bool rows = q->nb[0] == sizeof(float) && k->nb[0] == ggml_type_size(k->type) && v->nb[0] == ggml_type_size(v->type) &&
                      op->nb[0] == sizeof(float);
    const bool masks = !mask || (mask->type == GGML_TYPE_F16 && mask->nb[0] == 2 && mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] &&
                                 mask->ne[2] == 1);
    return plain && types && sizes && rows && masks;
}

size_t attention_work_size(const ggml_tensor * op, int n_threads) {
    return Shape(op).work_values() * sizeof(float) * static_cast<size_t>(n_threads) + work_alignment;
}

void compute_attention(const Functions & functions, const ggml_private::ComputeParams & params, ggml_tensor * op) {
    const Shape shape(op);
    const ggml_tensor *const q = shape.q, *const k = shape.k, *const v = shape.v, *const mask = shape.mask;
    const auto aligned = (reinterpret_cast<uintptr_t>(params.work) + work_alignment - 1) / work_alignment * work_alignment;
    float * const work = reinterpret_cast<float *>(aligned) + shape.work_values() * static_cast<size_t>(params.thread);
    if (params.thread == 0) {
        functions.chunk_set(params.threadpool, params.n_threads);
    }
    functions.barrier(params.threadpool);
    const int64_t per_head = shape.tasks_per_head();
    for (int64_t index = params.thread; index < shape.tasks(); index = functions.chunk_add(params.threadpool, 1)) {
        // The last tokens first: they see most.
        const int64_t token = (per_head - 1 - index / (k->ne[2] * q->ne[3])) * shape.tokens_per_task;
        const int64_t head = index % k->ne[2];
        const int64_t stream = index / k->ne[2] % q->ne[3];
        AttentionTask task;
        task.key_size = k->ne[0];
        task.value_size = v->ne[0];
        task.n_keys = k->ne[1];
        task.n_tokens = std::min(shape.tokens_per_task, q->ne[1] - token);
        task.n_heads = shape.group;
        task.half_precision = k->type == GGML_TYPE_F16;
        task.scale = parameter(op, 0);
        task.keys = static_cast<const char *>(k->data) + static_cast<size_t>(head) * k->nb[2] + static_cast<size_t>(stream) * k->nb[3];
        task.values = static_cast<const char *>(v->data) + static_cast<size_t>(head) * v->nb[2] + static_cast<size_t>(stream) * v->nb[3];
        task.key_step = k->nb[1];
        task.value_step = v->nb[1];
        task.queries = static_cast<const char *>(q->data) + static_cast<size_t>(token) * q->nb[1] +
                       static_cast<size_t>(head * shape.group) * q->nb[2] + static_cast<size_t>(stream) * q->nb[3];
        task.token_step = q->nb[1];
        task.head_step = q->nb[2];
        task.mask = nullptr;
        task.mask_step = 0;
        if (mask) {
            task.mask = reinterpret_cast<const uint16_t *>(static_cast<const char *>(mask->data) + static_cast<size_t>(token) * mask->nb[1] +
                                                           static_cast<size_t>(stream % mask->ne[3]) * mask->nb[3]);
            task.mask_step = mask->nb[1] / 2;
        }
        task.out = static_cast<float *>(op->data) +
                   (static_cast<size_t>(head * shape.group) * op->nb[1] + static_cast<size_t>(token) * op->nb[2] +
                    static_cast<size_t>(stream) * op->nb[3]) / sizeof(float);
        task.out_head_step = op->nb[1] / sizeof(float);
        task.out_token_step = op->nb[2] / sizeof(float);
        task.work = work;
        attention_kernel()->attend(task);
    }
}

}  // namespace rim::kernels
