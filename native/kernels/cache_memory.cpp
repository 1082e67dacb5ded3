#include "cache_memory.h"

#if defined(__linux__)

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include <ggml-backend.h>
#include <llama.h>

#include "redirect.h"

#endif

namespace rim::kernels {

#if defined(__linux__)

namespace {

// Makes `size` bytes zero: of whole pages by giving them back, unless the system refuses (locked or huge pages).
void zero(uint8_t * memory, size_t size) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto address = reinterpret_cast<uintptr_t>(memory);
    const size_t before = (page - address % page) % page;
    if (before < size) {
        uint8_t * const first = memory + before;
        const size_t whole = (size - before) / page * page;
#if defined(MADV_NOHUGEPAGE)
        madvise(first, whole, MADV_NOHUGEPAGE);  // else a layer's first row would bring 2 MiB
#endif
        if (madvise(first, whole, MADV_DONTNEED) == 0) {
            memset(memory, 0, before);
            memset(first + whole, 0, size - before - whole);
            return;
        }
    }
    memset(memory, 0, size);
}

// In place of ggml_backend_buffer_clear() of ggml-backend.cpp.
void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const size_t size = ggml_backend_buffer_get_size(buffer);
    if (value == 0 && size > 0 && ggml_backend_buffer_get_type(buffer) == ggml_backend_cpu_buffer_type()) {
        zero(static_cast<uint8_t *>(ggml_backend_buffer_get_base(buffer)), size);
    } else {
        ggml_backend_buffer_clear(buffer, value);
    }
}

}  // namespace

void clear_by_giving_back() {
    redirect(reinterpret_cast<const void *>(&llama_init_from_model), "ggml_backend_buffer_clear", reinterpret_cast<void *>(clear));
}

#else

void clear_by_giving_back() {}

#endif

}  // namespace rim::kernels
