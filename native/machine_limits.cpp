// machine_limits.cpp: read bandwidth by several threads, and matrix products through ggml's public interface.
#include "machine_limits.h"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cmath>
#include <memory>
#include <thread>

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include "cpu_backend.h"
#include "errors.h"
#include "kernels/buffer_type.h"

namespace rim {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

void check(bool good, const std::string & what) {
    if (!good) {
        throw Error(ErrorKind::option, what);
    }
}

void check_run(int32_t n_threads, int32_t n_samples, double min_seconds) {
    check(n_threads >= 1 && n_threads <= 1024, "n_threads is " + std::to_string(n_threads) + ", but must be in 1..1024");
    check(n_samples >= 1, "n_samples is " + std::to_string(n_samples) + ", but must be at least 1");
    check(min_seconds >= 0 && std::isfinite(min_seconds), "min_seconds must be 0 or more");
}

// ---- reading

constexpr size_t lanes = 16;  // independent sums, so that the additions never wait for each other
constexpr size_t words_per_line = 8;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx2", "default")))
#endif
uint64_t sum(const uint64_t * words, size_t n) {
    uint64_t sums[lanes] = {};
    for (size_t i = 0; i + lanes <= n; i += lanes) {
        for (size_t lane = 0; lane < lanes; ++lane) {
            sums[lane] += words[i + lane];
        }
    }
    uint64_t total = 0;
    for (const uint64_t value : sums) {
        total += value;
    }
    return total;
}

// Runs work(thread) on every thread, all starting together; seconds from the start to the end of the last one.
template <typename Work> double together(int32_t n_threads, const Work & work) {
    std::atomic<int32_t> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    threads.reserve(static_cast<size_t>(n_threads));
    for (int32_t i = 0; i < n_threads; ++i) {
        threads.emplace_back([&, i] {
            ++ready;
            while (!go) {
                std::this_thread::yield();
            }
            work(i);
        });
    }
    while (ready < n_threads) {
        std::this_thread::yield();
    }
    const auto start = Clock::now();
    go = true;
    for (std::thread & thread : threads) {
        thread.join();
    }
    return seconds_since(start);
}

// ---- products

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

ggml_type type_of(const std::string & name) {  // ggml writes some in capitals, "q4_K"
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        const char * known = ggml_type_name(type);
        if (known && lower(name) == lower(known) && ggml_blck_size(type) > 0) {
            return type;
        }
    }
    throw Error(ErrorKind::option, "there is no tensor type " + name);
}

float noise(uint32_t & state) {  // -1 .. 1
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

void fill_weights(ggml_tensor * tensor) {
    const int64_t inner = tensor->ne[0];
    const int64_t rows = tensor->ne[1];
    std::vector<float> values(static_cast<size_t>(inner * rows));
    uint32_t state = 1;
    for (float & value : values) {
        value = noise(state);
    }
    const std::vector<float> importance(static_cast<size_t>(inner), 1.0f);
    std::vector<uint8_t> data(ggml_row_size(tensor->type, inner) * static_cast<size_t>(rows));
    ggml_quantize_init(tensor->type);
    ggml_quantize_chunk(tensor->type, values.data(), data.data(), 0, rows, inner, importance.data());
    ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
}

// The places where libllama would keep CPU weights, best first.
std::vector<ggml_backend_buffer_type_t> weight_places(ggml_backend_dev_t device) {
    std::vector<ggml_backend_buffer_type_t> places;
    const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    if (ggml_backend_buffer_type_t * list = extra ? extra(device) : nullptr) {
        for (; *list; ++list) {
            places.push_back(*list);
        }
    }
    places.push_back(ggml_backend_dev_buffer_type(device));
    return places;
}

}  // namespace

std::vector<double> read_bandwidth(int64_t n_bytes, int32_t n_threads, int32_t n_samples, double min_seconds) {
    check_run(n_threads, n_samples, min_seconds);
    const int64_t least = static_cast<int64_t>(n_threads) * 4096;
    check(n_bytes >= least, "n_bytes is " + std::to_string(n_bytes) + ", but must be at least " + std::to_string(least));
    const size_t part = static_cast<size_t>(n_bytes) / sizeof(uint64_t) / static_cast<size_t>(n_threads) / lanes * lanes;
    const size_t total = part * static_cast<size_t>(n_threads);
    const std::unique_ptr<uint64_t[]> buffer(new uint64_t[total + words_per_line]);
    uint64_t * const first = buffer.get() + (64 - reinterpret_cast<uintptr_t>(buffer.get()) % 64) % 64 / sizeof(uint64_t);
    std::atomic<uint64_t> sink{0};
    // Each thread writes its own part first, so that its pages lie near it.
    together(n_threads, [&](int32_t i) { std::fill_n(first + part * static_cast<size_t>(i), part, static_cast<uint64_t>(i) + 1); });
    int64_t repeats = 1;
    const auto once = [&] {
        return together(n_threads, [&](int32_t i) {
            uint64_t found = 0;
            for (int64_t r = 0; r < repeats; ++r) {
                found += sum(first + part * static_cast<size_t>(i), part) + static_cast<uint64_t>(r);
                std::atomic_signal_fence(std::memory_order_seq_cst);
            }
            sink += found;
        });
    };
    const double warm = once();
    repeats = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(min_seconds / std::max(warm, 1e-7))));
    std::vector<double> rates;
    for (int32_t i = 0; i < n_samples; ++i) {
        rates.push_back(static_cast<double>(total * sizeof(uint64_t)) * static_cast<double>(repeats) / once());
    }
    return rates;
}

std::vector<double> product_rate(const Product & product, int32_t n_threads, int32_t n_samples, double min_seconds) {
    check_run(n_threads, n_samples, min_seconds);
    const ggml_type type = type_of(product.type);
    check(product.rows > 0 && product.inner > 0 && product.columns > 0 && product.inner % ggml_blck_size(type) == 0,
          "a product of " + product.type + " needs an inner size that is a multiple of " + std::to_string(ggml_blck_size(type)));
    kernels::install();
    const ggml_backend_ptr backend = cpu_backend(n_threads);
    ggml_backend_dev_t const device = ggml_backend_get_device(backend.get());
    for (const ggml_backend_buffer_type_t place : weight_places(device)) {
        const ggml_context_ptr weight_context = small_context(1);
        const ggml_context_ptr work_context = small_context(2);
        ggml_tensor * weights = ggml_new_tensor_2d(weight_context.get(), type, product.inner, product.rows);
        const ggml_backend_buffer_ptr weight_buffer(ggml_backend_alloc_ctx_tensors_from_buft(weight_context.get(), place));
        ggml_tensor * input = ggml_new_tensor_2d(work_context.get(), GGML_TYPE_F32, product.inner, product.columns);
        ggml_tensor * output = ggml_mul_mat(work_context.get(), weights, input);
        if (!weight_buffer || !ggml_backend_dev_supports_op(device, output)) {
            continue;
        }
        const ggml_backend_buffer_ptr work_buffer(ggml_backend_alloc_ctx_tensors(work_context.get(), backend.get()));
        if (!work_buffer) {
            throw Error(ErrorKind::backend, "no memory for a matrix product of " + product.type);
        }
        fill_weights(weights);
        std::vector<float> values(static_cast<size_t>(product.inner * product.columns));
        uint32_t state = 2;
        for (float & value : values) {
            value = noise(state);
        }
        ggml_backend_tensor_set(input, values.data(), 0, values.size() * sizeof(float));
        ggml_cgraph * graph = ggml_new_graph(work_context.get());
        ggml_build_forward_expand(graph, output);
        const auto once = [&] {
            if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
                throw Error(ErrorKind::backend, "ggml failed to compute a matrix product of " + product.type);
            }
        };
        once();
        const double operations = 2.0 * static_cast<double>(product.rows) * static_cast<double>(product.inner) *
                                  static_cast<double>(product.columns);
        std::vector<double> rates;
        for (int32_t i = 0; i < n_samples; ++i) {
            const auto start = Clock::now();
            int64_t n = 0;
            double elapsed = 0;
            do {
                once();
                ++n;
                elapsed = seconds_since(start);
            } while (elapsed < min_seconds);
            rates.push_back(operations * static_cast<double>(n) / elapsed);
        }
        return rates;
    }
    throw Error(ErrorKind::unsupported, "ggml cannot multiply matrices of " + product.type + " on the CPU");
}

}  // namespace rim
