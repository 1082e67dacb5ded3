#include "cache_memory.h"

#if defined(__linux__)

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include <ggml-backend.h>
#include <llama.h>

#include "pages.h"
#include "redirect.h"

#endif

namespace rim::kernels {

#if defined(__linux__)

namespace {

// Makes `size` bytes zero: of whole pages by giving them back, unless the system refuses (locked or huge pages).
void zero(uint8_t * memory, size_t size) {
    const Pages whole = whole_pages(memory, size, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
    if (whole.bytes > 0) {
#if defined(MADV_NOHUGEPAGE)
        madvise(whole.first, whole.bytes, MADV_NOHUGEPAGE);  // else a layer's first row would bring 2 MiB
#endif
        if (madvise(whole.first, whole.bytes, MADV_DONTNEED) == 0) {
            uint8_t *const first = static_cast<uint8_t *>(whole.first), *const end = first + whole.bytes;
            memset(memory, 0, static_cast<size_t>(first - memory));
            memset(end, 0, static_cast<size_t>(memory + size - end));
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
