// attention.cpp: which attention is ours, and how it is shared out between threads.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "barrier.h"
#include "turns.h"

namespace rim::kernels {

namespace {

constexpr int64_t most_heads = 32;
constexpr int64_t segment_keys = 512;  // summed on their own, then merged: so threads can share the keys of few tokens
constexpr int64_t alignment_values = 16;

struct Shape {
    const ggml_tensor *q, *k, *v, *mask;
    int64_t group;  // query heads that share a key/value head
    int64_t tokens_per_task;

    explicit Shape(const ggml_tensor * op)
        : q(op->src[0]), k(op->src[1]), v(op->src[2]), mask(op->src[3]), group(q->ne[2] / k->ne[2]),
          tokens_per_task(std::min(q->ne[1], std::max<int64_t>(1, most_rows / group))) {}

    int64_t tasks_per_head() const { return (q->ne[1] + tokens_per_task - 1) / tokens_per_task; }
    int64_t tasks() const { return tasks_per_head() * k->ne[2] * q->ne[3]; }
    int64_t segments() const { return (k->ne[1] + segment_keys - 1) / segment_keys; }
    bool shares_keys(int n_threads) const { return segments() > 1 && tasks() < 2 * n_threads; }

    int64_t part_values() const { return AttentionPart::size(tokens_per_task * group, v->ne[0]); }
    // Of one thread: what the kernel needs, and two parts.
    int64_t thread_values() const {
        const int64_t kernel = attention_kernel()->work_values(k->ne[0], v->ne[0], tokens_per_task * group);
        return (kernel + alignment_values - 1) / alignment_values * alignment_values + 2 * part_values();
    }
    // Of all threads: the parts of all tasks and segments, where these are shared out.
    int64_t shared_values(int n_threads) const { return shares_keys(n_threads) ? tasks() * segments() * part_values() : 0; }

    AttentionTask task(const ggml_tensor * op, int64_t index) const;
};

// What the threads take one after another: tasks, and where these are few and leave a rest, that rest in parts of their tokens.
struct Items {
    int64_t whole, parts;  // tasks in one piece; pieces of each further task
    int64_t count;

    Items(int64_t n_tasks, int64_t n_tokens, int64_t n_threads) : whole(n_tasks), parts(1) {
        const int64_t rest = n_tasks % n_threads;
        if (rest > 0 && n_tasks < 4 * n_threads) {
            whole -= rest;
            parts = std::min(n_tokens, (n_threads + rest - 1) / rest);
        }
        count = whole + (n_tasks - whole) * parts;
    }
    AttentionTask item(const Shape & shape, const ggml_tensor * op, int64_t index) const {
        if (index < whole) {
            return shape.task(op, index);
        }
        AttentionTask task = shape.task(op, whole + (index - whole) / parts);
        const int64_t part = (index - whole) % parts;
        const int64_t first = task.n_tokens * part / parts;
        task.n_tokens = task.n_tokens * (part + 1) / parts - first;
        task.queries += static_cast<size_t>(first) * task.token_step;
        task.mask = task.mask ? task.mask + static_cast<size_t>(first) * task.mask_step : nullptr;
        task.out += static_cast<size_t>(first) * task.out_token_step;
        return task;
    }
};

float parameter(const ggml_tensor * op, int index) {
    float value;
    memcpy(&value, op->op_params + index, sizeof value);
    return value;
}

AttentionTask Shape::task(const ggml_tensor * op, int64_t index) const {
    // The last tokens first: they see most.
    const int64_t token = (tasks_per_head() - 1 - index / (k->ne[2] * q->ne[3])) * tokens_per_task;
    const int64_t head = index % k->ne[2];
    const int64_t stream = index / k->ne[2] % q->ne[3];
    const auto at = [](const ggml_tensor * tensor, int64_t first, int64_t second, int64_t third) {
        return static_cast<char *>(tensor->data) + static_cast<size_t>(first) * tensor->nb[1] + static_cast<size_t>(second) * tensor->nb[2] +
               static_cast<size_t>(third) * tensor->nb[3];
    };
    AttentionTask task{};
    task.key_size = k->ne[0];
    task.value_size = v->ne[0];
    task.n_keys = k->ne[1];
    task.n_tokens = std::min(tokens_per_task, q->ne[1] - token);
    task.n_heads = group;
    task.half_precision = k->type == GGML_TYPE_F16;
    task.scale = parameter(op, 0);
    task.keys = at(k, 0, head, stream);
    task.values = at(v, 0, head, stream);
    task.key_step = k->nb[1];
    task.value_step = v->nb[1];
    task.queries = at(q, token, head * group, stream);
    task.token_step = q->nb[1];
    task.head_step = q->nb[2];
    if (mask) {
        task.mask = reinterpret_cast<const uint16_t *>(at(mask, token, 0, stream % mask->ne[3]));
        task.mask_step = mask->nb[1] / 2;
    }
    task.out = reinterpret_cast<float *>(at(op, head * group, token, stream));
    task.out_head_step = op->nb[1] / sizeof(float);
    task.out_token_step = op->nb[2] / sizeof(float);
    return task;
}

// Adds what further keys give to what earlier ones gave.
void merge(const AttentionTask & task, const AttentionPart & more, const AttentionPart & all) {
    for (int64_t row = 0; row < task.n_rows(); ++row) {
        if (more.largest[row] == -INFINITY) {
            continue;
        }
        const float largest = std::max(all.largest[row], more.largest[row]);
        const float before = all.largest[row] == -INFINITY ? 0.0f : std::exp(all.largest[row] - largest);
        const float now = std::exp(more.largest[row] - largest);
        float * const sums = all.sums + row * task.value_size;
        const float * const added = more.sums + row * task.value_size;
        for (int64_t at = 0; at < task.value_size; ++at) {
            sums[at] = sums[at] * before + added[at] * now;
        }
        all.totals[row] = all.totals[row] * before + more.totals[row] * now;
        all.largest[row] = largest;
    }
}

void finish(const AttentionTask & task, const AttentionPart & all) {
    for (int64_t row = 0; row < task.n_rows(); ++row) {
        float * const to = task.out + static_cast<size_t>(row / task.n_heads) * task.out_token_step +
                           static_cast<size_t>(row % task.n_heads) * task.out_head_step;
        const float share = all.totals[row] == 0.0f ? 0.0f : 1.0f / all.totals[row];
        for (int64_t at = 0; at < task.value_size; ++at) {
            to[at] = all.sums[row * task.value_size + at] * share;
        }
    }
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
    const Shape shape(op);
    const int64_t values = shape.thread_values() * n_threads + shape.shared_values(n_threads) + alignment_values;
    return static_cast<size_t>(values) * sizeof(float);
}

void compute_attention(const ggml_private::ComputeParams & params, ggml_tensor * op) {
    const Shape shape(op);
    const AttentionKernel & kernel = *attention_kernel();
    constexpr uintptr_t alignment = alignment_values * sizeof(float);
    auto * const memory = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(params.work) + alignment - 1) / alignment * alignment);
    float * const shared = memory + shape.thread_values() * params.n_threads;
    const AttentionPart all(memory + shape.thread_values() * params.thread, shape.tokens_per_task * shape.group, shape.v->ne[0]);
    const AttentionPart more(all.sums + shape.part_values(), shape.tokens_per_task * shape.group, shape.v->ne[0]);
    float * const work = more.sums + shape.part_values();

    const int64_t n_segments = shape.segments();
    const bool shares = shape.shares_keys(params.n_threads);
    const auto part_of = [&](int64_t task, int64_t segment) {
        return AttentionPart(shared + (task * n_segments + segment) * shape.part_values(), shape.tokens_per_task * shape.group,
                             shape.v->ne[0]);
    };
    const auto attend = [&](const AttentionTask & task, int64_t segment, const AttentionPart & part) {
        kernel.attend(task, segment * segment_keys, std::min((segment + 1) * segment_keys, task.n_keys), part, work);
    };

    const Items items(shape.tasks(), shape.tokens_per_task, params.n_threads);
    Turns turns(params, op, shares ? shape.tasks() * n_segments : items.count);
    for (int64_t item; turns.take(item);) {
        if (shares) {
            attend(shape.task(op, item / n_segments), item % n_segments, part_of(item / n_segments, item % n_segments));
            continue;
        }
        const AttentionTask task = items.item(shape, op, item);
        attend(task, 0, all);
        for (int64_t segment = 1; segment < n_segments; ++segment) {
            attend(task, segment, more);
            merge(task, more, all);
        }
        finish(task, all);
    }
    if (shares) {
        wait_for_all(params.threadpool);
        for (int64_t index = params.thread; index < shape.tasks(); index += params.n_threads) {
            const AttentionTask task = shape.task(op, index);
            for (int64_t segment = 1; segment < n_segments; ++segment) {
                merge(task, part_of(index, segment), part_of(index, 0));
            }
            finish(task, part_of(index, 0));
        }
    }
}

}  // namespace rim::kernels
