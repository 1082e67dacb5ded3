// check.cpp: the kernels alone, without ggml and the rest of the extension: prints a hash of what they give for fixed input, one line per
// weight type, one for attention, for norms and for SwiGLU. All instruction sets must print the same lines; see docs/kernels.md.
//
//     [RIM_EDGE_KERNELS=avx2] check
#include <cstdio>
#include <cstring>
#include <vector>

#include "attention.h"
#include "kernel.h"
#include "layout.h"
#include "rows.h"

namespace {

using namespace rim::kernels;

struct Random {
    uint64_t state = 88172645463325252u;
    uint32_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return static_cast<uint32_t>(state >> 32);
    }
    float value() { return static_cast<float>(static_cast<int32_t>(next()) >> 8) / 8388608.0f; }
};

struct FileType {
    ggml_type type;
    const char * name;
    size_t values, bytes;       // of a block
    std::vector<size_t> scales;  // where a block has numbers in half precision
};

const FileType file_types[] = {
    {GGML_TYPE_Q4_0, "Q4_0", 32, 18, {0}},       {GGML_TYPE_Q4_1, "Q4_1", 32, 20, {0, 2}}, {GGML_TYPE_Q5_0, "Q5_0", 32, 22, {0}},
    {GGML_TYPE_Q5_1, "Q5_1", 32, 24, {0, 2}},    {GGML_TYPE_Q8_0, "Q8_0", 32, 34, {0}},    {GGML_TYPE_IQ4_NL, "IQ4_NL", 32, 18, {0}},
    {GGML_TYPE_Q4_K, "Q4_K", 256, 144, {0, 2}}, {GGML_TYPE_Q5_K, "Q5_K", 256, 176, {0, 2}}, {GGML_TYPE_Q6_K, "Q6_K", 256, 210, {208}},
};

uint64_t hash(const std::vector<float> & values) {
    uint64_t result = 14695981039346656037u;
    for (const float value : values) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        result = (result ^ bits) * 1099511628211u;
    }
    return result;
}

template <class T>
T * aligned(std::vector<T> & memory, size_t n) {
    memory.assign(n + 64 / sizeof(T), T{});
    return reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
}

void check_type(const FileType & of) {
    const Kernel * const kernel = kernel_for(of.type);
    if (!kernel) {
        std::printf("%-9s no kernel\n", of.name);
        return;
    }
    constexpr int64_t rows = 80, inner = 768;
    Random random;
    const size_t row_bytes = inner / of.values * of.bytes;
    std::vector<uint8_t> file(rows * row_bytes);
    for (uint8_t & byte : file) {
        byte = static_cast<uint8_t>(random.next());
    }
    for (size_t block = 0; block < file.size(); block += of.bytes) {
        for (const size_t at : of.scales) {
            const auto scale = static_cast<uint16_t>(0x2800 + (random.next() & 0x87FF));  // both signs
            memcpy(file.data() + block + at, &scale, sizeof scale);
        }
    }
    const size_t tile_size = tile_bytes(*layout_of(of.type), inner);
    std::vector<uint8_t> tile_memory, work_memory;
    uint8_t * const tiles = aligned(tile_memory, tile_size * (rows / tile_rows));
    for (int64_t tile = 0; tile < rows / tile_rows; ++tile) {
        pack_tile(of.type, kernel_for(of.type)->signed_quants, file.data() + static_cast<size_t>(tile * tile_rows) * row_bytes, row_bytes,
                  inner, tiles + tile * tile_size);
    }
    std::printf("%-9s", of.name);
    for (const int64_t n : {1, 3, 8, 9, 25, 34}) {
        std::vector<float> values(static_cast<size_t>(n * inner)), out(static_cast<size_t>(n * rows));
        for (float & value : values) {
            value = random.value();
        }
        const Prepared prepared{aligned(work_memory, kernel->prepared_bytes(inner, n)), inner, n};
        for (int64_t token = 0; token < n; ++token) {
            kernel->prepare(values.data() + token * inner, token, 0, inner, prepared);
        }
        kernel->multiply(tiles, prepared, Part{0, rows / tile_rows, 0, n}, out.data(), rows);
        std::vector<float> told(out.size());
        kernel->multiply(tiles, prepared, Part{0, rows / tile_rows, 0, n, true}, told.data(), rows);
        if (std::memcmp(told.data(), out.data(), out.size() * sizeof(float)) != 0) {
            std::printf(" told otherwise than alone");
        }
        std::printf(" %016llx", static_cast<unsigned long long>(hash(out)));
    }
    std::printf("\n");
}

// Sparse: every token sees few of the keys.
uint64_t hash_of_attention(const AttentionKernel & kernel, bool half, bool sparse) {
    AttentionTask task{};
    task.key_size = 64, task.value_size = 48, task.n_keys = 150, task.n_tokens = 13, task.n_heads = 3;
    task.half_precision = half, task.scale = 0.3f;
    Random random;
    const auto fill = [&](std::vector<float> & values, int64_t n) {
        values.resize(static_cast<size_t>(n));
        for (float & value : values) {
            value = 2 * random.value();
        }
    };
    std::vector<float> queries, keys, values;
    fill(queries, task.n_rows() * task.key_size);
    fill(keys, task.n_keys * task.key_size);
    fill(values, task.n_keys * task.value_size);
    std::vector<uint16_t> half_keys, half_values, mask;
    for (size_t i = 0; i < keys.size(); ++i) {
        half_keys.push_back(static_cast<uint16_t>(0x3000 + (random.next() & 0x8FFF)));
    }
    for (size_t i = 0; i < values.size(); ++i) {
        half_values.push_back(static_cast<uint16_t>(0x3000 + (random.next() & 0x8FFF)));
    }
    for (int64_t i = 0; i < task.n_tokens * task.n_keys; ++i) {
        const bool is_seen = sparse ? random.next() % 8 == 0 : random.next() % 3 != 0;
        mask.push_back(is_seen ? 0 : 0xFC00);
    }
    const size_t size = half ? 2 : 4;
    task.keys = half ? reinterpret_cast<const char *>(half_keys.data()) : reinterpret_cast<const char *>(keys.data());
    task.values = half ? reinterpret_cast<const char *>(half_values.data()) : reinterpret_cast<const char *>(values.data());
    task.key_step = static_cast<size_t>(task.key_size) * size, task.value_step = static_cast<size_t>(task.value_size) * size;
    task.queries = reinterpret_cast<const char *>(queries.data());
    task.head_step = static_cast<size_t>(task.key_size) * 4, task.token_step = task.head_step * static_cast<size_t>(task.n_heads);
    task.mask = mask.data(), task.mask_step = static_cast<size_t>(task.n_keys);
    std::vector<float> work_memory, part_memory;
    float * const work = aligned(work_memory, static_cast<size_t>(kernel.work_values(task.key_size, task.value_size, task.n_rows())));
    float * const part = aligned(part_memory, static_cast<size_t>(AttentionPart::size(task.n_rows(), task.value_size)));
    const AttentionPart all(part, task.n_rows(), task.value_size);
    kernel.attend(task, 0, task.n_keys, false, all, work);
    // One and two tokens alone, in two goes: the rows of all together, to the last bit.
    for (int64_t token = 0; token + 2 <= task.n_tokens; ++token) {
        AttentionTask few = task;
        few.n_tokens = 1 + token % 2;
        few.queries += static_cast<size_t>(token) * task.token_step;
        few.mask += static_cast<size_t>(token) * task.mask_step;
        std::vector<float> few_memory;
        const AttentionPart alone(aligned(few_memory, static_cast<size_t>(AttentionPart::size(few.n_rows(), task.value_size))), few.n_rows(),
                                  task.value_size);
        kernel.attend(few, 0, block_keys, false, alone, work);
        kernel.attend(few, block_keys, task.n_keys, true, alone, work);
        const int64_t row = token * task.n_heads;
        const auto differ = [&](const float * one, const float * other, int64_t n) {
            return std::memcmp(one, other, static_cast<size_t>(n) * sizeof(float)) != 0;
        };
        if (differ(alone.sums, all.sums + row * task.value_size, few.n_rows() * task.value_size) ||
            differ(alone.largest, all.largest + row, few.n_rows()) || differ(alone.totals, all.totals + row, few.n_rows())) {
            std::printf(" tokens alone otherwise than together");
        }
    }
    return hash(std::vector<float>(part, part + task.n_rows() * (task.value_size + 2)));
}

void check_attention() {
    const AttentionKernel * const kernel = attention_kernel();
    if (!kernel) {
        std::printf("attention no kernel\n");
        return;
    }
    std::printf("attention");
    for (const bool half : {false, true}) {
        for (const bool sparse : {false, true}) {
            std::printf(" %016llx", static_cast<unsigned long long>(hash_of_attention(*kernel, half, sparse)));
        }
    }
    std::printf("\n");
}

void check_norm() {
    Random random;
    std::vector<float> results;
    for (const int64_t n : {1, 16, 47, 576, 2049}) {
        std::vector<float> values, weights, out(static_cast<size_t>(n));
        for (int64_t i = 0; i < n; ++i) {
            values.push_back(3 * random.value());
            weights.push_back(random.value());
        }
        row_kernel()->norm(values.data(), weights.data(), out.data(), n, 1e-5f);
        results.insert(results.end(), out.begin(), out.end());
    }
    std::printf("norm      %016llx\n", static_cast<unsigned long long>(hash(results)));
}

void check_swiglu() {
    constexpr int64_t n = 4099;
    Random random;
    std::vector<float> gate, up, out(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
        gate.push_back(static_cast<float>(1 + i % 100) * random.value());
        up.push_back(random.value());
    }
    row_kernel()->swiglu(gate.data(), up.data(), out.data(), n);
    std::printf("swiglu    %016llx\n", static_cast<unsigned long long>(hash(out)));
}

}  // namespace

int main() {
    if (!why_none().empty()) {
        std::fprintf(stderr, "no kernels: %s\n", why_none().c_str());
        return 1;
    }
    for (const FileType & of : file_types) {
        check_type(of);
    }
    check_attention();
    check_norm();
    check_swiglu();
    return 0;
}
