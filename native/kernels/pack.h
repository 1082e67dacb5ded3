// pack.h: laying out a whole weight at load, by several threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml.h>

namespace rim::kernels {

// Lays out a matrix as it is in a file. Where `data` is a mapped file, its pages are let go afterwards: they are not needed again, and
// weight and file would otherwise count twice.
void pack(ggml_type type, const uint8_t * data, int64_t inner, int64_t rows, uint8_t * tiles);

// A hint for memory that is read from end to end for every token.
void prefer_large_pages(void * memory, size_t size) noexcept;

}  // namespace rim::kernels
