// attention.cpp: which attention is ours, and how it is shared out between threads.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "barrier.h"
#include "kernel.h"
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
    // Whether reading keys and values is what takes the time: then each thread takes neighbouring heads, unless threads share keys.
    bool may_read_in_runs() const {
        const auto side_by_side = [](const ggml_tensor * heads) { return heads->nb[2] == heads->nb[0] * static_cast<size_t>(heads->ne[0]); };
        return q->ne[1] <= few_tokens && q->ne[3] == 1 && tasks_per_head() == 1 && side_by_side(k) && side_by_side(v);
    }
    bool reads_in_runs(int n_threads) const { return may_read_in_runs() && !shares_keys(n_threads); }

    int64_t part_values() const { return AttentionPart::size(tokens_per_task * group, v->ne[0]); }
    AttentionPart part(float * memory, int64_t index) const { return {memory + index * part_values(), tokens_per_task * group, v->ne[0]}; }
    int64_t kernel_values() const {
        const int64_t kernel = attention_kernel()->work_values(k->ne[0], v->ne[0], tokens_per_task * group);
        return (kernel + alignment_values - 1) / alignment_values * alignment_values;
    }
    // Of one thread: what the kernel needs, and two parts of each task that it works on at the same time.
    int64_t thread_values(int n_threads) const {
        const int64_t n_tasks = reads_in_runs(n_threads) ? k->ne[2] / n_threads + 2 : 1;  // Heads: no thread has more
        return kernel_values() + 2 * n_tasks * part_values();
    }
    // Of all threads, and of any fewer: OpenMP may give fewer than were asked for.
    int64_t all_values(int n_threads) const {
        const int64_t n_tasks = may_read_in_runs() ? k->ne[2] + 2 * n_threads : n_threads;
        return n_threads * kernel_values() + 2 * n_tasks * part_values() + shared_values(n_threads);
    }
    // The parts of all tasks and segments, where these are shared out.
    int64_t shared_values(int n_threads) const { return shares_keys(n_threads) ? tasks() * segments() * part_values() : 0; }

    AttentionTask task(const ggml_tensor * op, int64_t index) const;
};

// Tokens [first, end) of a task.
AttentionTask tokens_of(AttentionTask task, int64_t first, int64_t end) {
    task.n_tokens = end - first;
    task.queries += static_cast<size_t>(first) * task.token_step;
    task.mask = task.mask_of(first);
    task.out += static_cast<size_t>(first) * task.out_token_step;
    return task;
}

// Equal shares of all heads and tokens: neighbouring heads of a thread, the first and the last one perhaps for some of the tokens.
struct Heads {
    int64_t n_tokens, first, end;  // of heads x tokens

    Heads(const Shape & shape, int thread, int n_threads)
        : n_tokens(shape.q->ne[1]), first(shape.k->ne[2] * n_tokens * thread / n_threads),
          end(shape.k->ne[2] * n_tokens * (thread + 1) / n_threads) {}
    int64_t first_head() const { return first / n_tokens; }
    int64_t count() const { return first < end ? (end + n_tokens - 1) / n_tokens - first_head() : 0; }
    AttentionTask task(const Shape & shape, const ggml_tensor * op, int64_t index) const {
        const int64_t head = first_head() + index, before = head * n_tokens;
        return tokens_of(shape.task(op, head), std::max(first - before, INT64_C(0)), std::min(end - before, n_tokens));
    }
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
        const AttentionTask task = shape.task(op, whole + (index - whole) / parts);
        const int64_t part = (index - whole) % parts;
        return tokens_of(task, task.n_tokens * part / parts, task.n_tokens * (part + 1) / parts);
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

// Keys after which no token of the task sees any: libllama's masks go on to a multiple of 256.
int64_t end_of_seen(const AttentionTask & task) {
    int64_t end = task.mask ? 0 : task.n_keys;
    for (int64_t token = 0; token < task.n_tokens; ++token) {
        const uint16_t * const mask = task.mask_of(token);
        for (int64_t key = task.n_keys; key > end; --key) {
            if (mask[key - 1] != lowest_half) {
                end = key;
            }
        }
    }
    return end;
}

// Keys and values of a thread's heads, as far as any token sees them.
std::array<Run, 2> rows_of(const Shape & shape, const ggml_tensor * op, const Heads & heads) {
    const int64_t n_keys = end_of_seen(shape.task(op, 0));
    const AttentionTask task = heads.task(shape, op, 0);
    const auto bytes = [&](const ggml_tensor * cache) { return static_cast<size_t>(heads.count()) * cache->nb[2]; };
    return {Run{task.keys, bytes(shape.k), task.key_step, n_keys}, Run{task.values, bytes(shape.v), task.value_step, n_keys}};
}

// Keys [first, end) of n tasks whose keys lie one after the other with all their heads, block by block: so memory is read in long runs, each
// fetched while the block before is worked on. attend(i, first, end) works on a block of task i.
template <class Attend>
void read_in_runs(const std::array<Run, 2> & rows, int64_t first_key, int64_t end_key, int64_t n_tasks, const Attend & attend) {
    const auto fetch = [&rows](int64_t first, int64_t end) {
        for (int64_t key = first; key < end; ++key) {
            for (const Run & run : rows) {
                run.fetch(key, 0, run.bytes);
            }
        }
    };
    fetch(first_key, std::min(first_key + block_keys, end_key));
    int64_t first = first_key;
    do {  // once, too, if there is no key
        const int64_t end = std::min(first + block_keys, end_key), coming = std::min(block_keys, end_key - end);
        for (int64_t i = 0; i < n_tasks; ++i) {
            fetch(end + coming * i / n_tasks, end + coming * (i + 1) / n_tasks);
            attend(i, first, end);
        }
        first = end;
    } while (first < end_key);
}

// All keys of a thread's heads.
void attend_in_runs(const Shape & shape, const ggml_tensor * op, const Heads & heads, float * memory) {
    const int64_t n_tasks = heads.count();
    if (n_tasks == 0) {
        return;
    }
    const AttentionKernel & kernel = *attention_kernel();
    const auto part = [&](int64_t index) { return shape.part(memory, index); };
    float * const work = part(2 * n_tasks).sums;
    const std::array<Run, 2> rows = rows_of(shape, op, heads);
    const int64_t n_keys = rows[0].count;
    read_in_runs(rows, 0, n_keys, n_tasks, [&](int64_t i, int64_t first, int64_t end) {
        const AttentionTask task = heads.task(shape, op, i);
        const AttentionPart all = part(2 * i), more = part(2 * i + 1);
        kernel.attend(task, first, end, first % segment_keys != 0, first < segment_keys ? all : more, work);
        if (first >= segment_keys && (end % segment_keys == 0 || end == n_keys)) {
            merge(task, more, all);
        }
    });
    for (int64_t i = 0; i < n_tasks; ++i) {
        kernel.finish(heads.task(shape, op, i), part(2 * i));
    }
}

// Tasks one after another.
void attend_in_turns(const Shape & shape, const ggml_private::ComputeParams & params, ggml_tensor * op, float * own) {
    const AttentionKernel & kernel = *attention_kernel();
    const AttentionPart all = shape.part(own, 0), more = shape.part(own, 1);
    float * const work = shape.part(own, 2).sums;
    const Items items(shape.tasks(), shape.tokens_per_task, params.n_threads);
    Turns turns(params, op, items.count);
    for (int64_t item; turns.take(item);) {
        const AttentionTask task = items.item(shape, op, item);
        for (int64_t first = 0; first < task.n_keys; first += segment_keys) {
            kernel.attend(task, first, std::min(first + segment_keys, task.n_keys), false, first == 0 ? all : more, work);
            if (first > 0) {
                merge(task, more, all);
            }
        }
        kernel.finish(task, all);
    }
}

// Segments of the keys one after another, as many for every thread with all tasks, read in runs, and those that are left over task by task;
// `shared` is of all threads.
void attend_in_segments(const Shape & shape, const ggml_private::ComputeParams & params, ggml_tensor * op, float * work, float * shared) {
    const AttentionKernel & kernel = *attention_kernel();
    const int64_t n_segments = shape.segments(), n_tasks = shape.tasks();
    const auto part_of = [&](int64_t task, int64_t segment) { return shape.part(shared, task * n_segments + segment); };
    const int64_t n_whole = shape.may_read_in_runs() ? n_segments - n_segments % params.n_threads : 0;
    const std::array<Run, 2> rows = n_whole > 0 ? rows_of(shape, op, Heads(shape, 0, 1)) : std::array<Run, 2>{};
    Turns turns(params, op, n_whole + (n_segments - n_whole) * n_tasks);
    for (int64_t item; turns.take(item);) {
        const int64_t left_over = item - n_whole;  // which item of those
        const int64_t segment = left_over < 0 ? item : n_whole + left_over / n_tasks;
        const int64_t first_key = segment * segment_keys, end_key = std::min(first_key + segment_keys, shape.k->ne[1]);
        const auto attend = [&](int64_t task, int64_t first, int64_t end) {
            kernel.attend(shape.task(op, task), first, end, first != first_key, part_of(task, segment), work);
        };
        if (left_over < 0) {
            read_in_runs(rows, first_key, std::max(first_key, std::min(end_key, rows[0].count)), n_tasks, attend);
        } else {
            attend(left_over % n_tasks, first_key, end_key);
        }
    }
    wait_for_all(params.threadpool);
    for (int64_t index = params.thread; index < n_tasks; index += params.n_threads) {
        const AttentionTask task = shape.task(op, index);
        for (int64_t segment = 1; segment < n_segments; ++segment) {
            merge(task, part_of(index, segment), part_of(index, 0));
        }
        kernel.finish(task, part_of(index, 0));
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
    return static_cast<size_t>(shape.all_values(n_threads) + alignment_values) * sizeof(float);
}

void compute_attention(const ggml_private::ComputeParams & params, ggml_tensor * op) {
    const Shape shape(op);
    constexpr uintptr_t alignment = alignment_values * sizeof(float);
    auto * const memory = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(params.work) + alignment - 1) / alignment * alignment);
    float * const shared = memory + shape.thread_values(params.n_threads) * params.n_threads;
    float * const own = memory + shape.thread_values(params.n_threads) * params.thread;
    Ahead & ahead = Ahead::own();
    ahead.reach(op);
    if (shape.reads_in_runs(params.n_threads)) {
        attend_in_runs(shape, op, Heads(shape, params.thread, params.n_threads), own);
    } else if (shape.shares_keys(params.n_threads)) {
        attend_in_segments(shape, params, op, own, shared);
    } else {
        attend_in_turns(shape, params, op, own);
    }
    ahead.look(params, op);
}

std::array<Run, 2> first_keys(const ggml_tensor * op, int thread, int n_threads) noexcept {
    constexpr size_t worth_fetching = 64 << 10;  // bytes, of keys and of values
    const Shape shape(op);
    const Heads heads(shape, thread, n_threads);
    const bool is_mask_known = !shape.mask || shape.mask->op == GGML_OP_NONE;  // before the graph is computed
    if (!shape.reads_in_runs(n_threads) || heads.count() == 0 || !is_mask_known) {
        return {};
    }
    std::array<Run, 2> rows = rows_of(shape, op, heads);
    for (Run & run : rows) {
        run.count = std::min(run.count, static_cast<int64_t>(worth_fetching / run.bytes));
    }
    return rows;
}

}  // namespace rim::kernels
