// machine_limits.h: what this machine can do at most, measured: bytes read from memory and matrix products per second.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rim {

// Bytes per second that `n_threads` threads read together from a buffer of `n_bytes`, each thread its own part; one figure
// per sample. A sample reads the buffer as often as fills `min_seconds`. Choose a buffer far larger than the caches to
// measure the memory. Throws Error option for numbers that make no sense, std::bad_alloc.
std::vector<double> read_bandwidth(int64_t n_bytes, int32_t n_threads, int32_t n_samples, double min_seconds);

// One matrix product as ggml computes it, weights [inner, rows] of `type` ("q4_0", "f32", ...) times [inner, columns] of F32.
struct Product {
    std::string type;
    int64_t rows = 0;
    int64_t inner = 0;
    int64_t columns = 0;
};

// Operations (two per multiplication and addition) per second of that product on the CPU, with the weights in the layout in
// which libllama keeps them (repacked where ggml has faster kernels for it); one figure per sample. Throws Error option for
// an unknown type or sizes that do not fit it, Error backend.
std::vector<double> product_rate(const Product & product, int32_t n_threads, int32_t n_samples, double min_seconds);

}  // namespace rim
