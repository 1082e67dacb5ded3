// pages.h: the whole pages of a piece of memory, which are what the system can be told about.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rim::kernels {

struct Pages {
    void * first;
    size_t bytes;  // 0: no page is whole
};

inline Pages whole_pages(const void * memory, size_t size, size_t page) noexcept {
    const auto address = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (address + page - 1) / page * page, end = (address + size) / page * page;
    return {reinterpret_cast<void *>(first), first < end ? end - first : 0};
}

}  // namespace rim::kernels
