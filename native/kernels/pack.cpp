#include "pack.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "../cpu.h"
#include "layout.h"

namespace rim::kernels {

namespace {

constexpr int64_t tiles_per_step = 8;
constexpr int64_t values_worth_threads = 1 << 20;

#if defined(__linux__)

// Whether the page comes from a file (or shared memory): bit 61 of its entry in the page map.
bool is_file_page(uintptr_t address, size_t page) {
    const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    uint64_t entry = 0;
    const bool read = pread(file, &entry, sizeof entry, static_cast<off_t>(address / page * sizeof entry)) == sizeof entry;
    close(file);
    return read && (entry >> 61 & 1) != 0;
}

void let_go(const uint8_t * data, size_t size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t start = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
    if (start < end && is_file_page(start, page) && is_file_page(end - page, page)) {
        madvise(reinterpret_cast<void *>(start), end - start, MADV_DONTNEED);  // a later read would bring them back
    }
}

#else

void let_go(const uint8_t *, size_t) {}

#endif

}  // namespace

void prefer_large_pages([[maybe_unused]] void * memory, [[maybe_unused]] size_t size) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t large = 2 << 20;
    const uintptr_t start = (reinterpret_cast<uintptr_t>(memory) + large - 1) / large * large;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + size) / large * large;
    if (start < end) {
        madvise(reinterpret_cast<void *>(start), end - start, MADV_HUGEPAGE);
    }
#endif
}

void pack(ggml_type type, const uint8_t * data, int64_t inner, int64_t rows, uint8_t * tiles) {
    const size_t row_bytes = ggml_row_size(type, inner);
    const size_t tile_size = tile_bytes(*layout_of(type), inner);
    const int64_t n_tiles = rows / tile_rows;
    std::atomic<int64_t> next{0};
    const auto work = [&] {
        for (int64_t first = next.fetch_add(tiles_per_step); first < n_tiles; first = next.fetch_add(tiles_per_step)) {
            for (int64_t tile = first; tile < std::min(first + tiles_per_step, n_tiles); ++tile) {
                pack_tile(type, data + static_cast<size_t>(tile * tile_rows) * row_bytes, row_bytes, inner, tiles + static_cast<size_t>(tile) * tile_size);
            }
        }
    };
    std::vector<std::thread> helpers;
    try {
        for (int i = inner * rows >= values_worth_threads ? physical_cores() : 1; i > 1; --i) {
            helpers.emplace_back(work);
        }
    } catch (const std::exception &) {  // no more threads: this one does it
    }
    work();
    for (std::thread & helper : helpers) {
        helper.join();
    }
    let_go(data, row_bytes * static_cast<size_t>(rows));
}

}  // namespace rim::kernels
