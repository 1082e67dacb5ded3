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
#include "kernel.h"
#include "layout.h"
#include "pages.h"

namespace rim::kernels {

namespace {

constexpr int64_t tiles_per_step = 16;
constexpr int64_t values_worth_threads = 1 << 17;

#if defined(__linux__)

// Whether the page comes from a file (or shared memory): bit 61 of its entry in the page map.
bool is_file_page(uintptr_t address, size_t page) {
    const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    static_cast<void>(*reinterpret_cast<const volatile uint8_t *>(address));  // a page that is not there yet has no entry
    uint64_t entry = 0;
    const bool read = pread(file, &entry, sizeof entry, static_cast<off_t>(address / page * sizeof entry)) == sizeof entry;
    close(file);
    return read && (entry >> 61 & 1) != 0;
}

// The pages of a mapped file, which a later read would bring back.
class Source {
  public:
    Source(const uint8_t * data, size_t size) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
        const uintptr_t first = reinterpret_cast<uintptr_t>(data) + page_ - 1;
        const uintptr_t last = reinterpret_cast<uintptr_t>(data) + size - page_;
        is_file_ = size >= 2 * page_ && is_file_page(first, page_) && is_file_page(last, page_);
    }
    void let_go(const uint8_t * data, size_t size) const {
        const Pages whole = whole_pages(data, size, page_);
        if (is_file_ && whole.bytes > 0) {
            madvise(whole.first, whole.bytes, MADV_DONTNEED);
        }
    }
    // Where the same matrix also gives the embeddings of tokens, a row brings back some pages, not 2 MiB.
    void bring_little([[maybe_unused]] const uint8_t * data, [[maybe_unused]] size_t size) const {
#if defined(MADV_NOHUGEPAGE)
        const uintptr_t start = reinterpret_cast<uintptr_t>(data) / page_ * page_;
        if (is_file_) {
            madvise(reinterpret_cast<void *>(start), reinterpret_cast<uintptr_t>(data) + size - start, MADV_NOHUGEPAGE);
        }
#endif
    }

  private:
    size_t page_;
    bool is_file_;
};

#else

struct Source {
    Source(const uint8_t *, size_t) {}
    void let_go(const uint8_t *, size_t) const {}
    void bring_little(const uint8_t *, size_t) const {}
};

#endif

}  // namespace

void prefer_large_pages([[maybe_unused]] void * memory, [[maybe_unused]] size_t size) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const Pages whole = whole_pages(memory, size, 2 << 20);
    if (whole.bytes > 0) {
        madvise(whole.first, whole.bytes, MADV_HUGEPAGE);
    }
#endif
}

void pack(ggml_type type, const uint8_t * data, int64_t inner, int64_t rows, uint8_t * tiles) {
    const size_t row_bytes = ggml_row_size(type, inner);
    const size_t tile_size = tile_bytes(*layout_of(type), inner);
    const bool signed_quants = kernel_for(type)->signed_quants;
    const int64_t n_tiles = tile_count(rows);
    std::vector<uint8_t> last;  // the rows of a tile that is not full, then zeros
    const size_t size = row_bytes * static_cast<size_t>(rows);
    const Source source(data, size);
    if (rows % tile_rows != 0) {
        const size_t whole = static_cast<size_t>(rows / tile_rows * tile_rows) * row_bytes;
        last.assign(row_bytes * tile_rows, 0);
        std::copy(data + whole, data + size, last.begin());
    }
    std::atomic<int64_t> next{0};
    const auto work = [&] {
        for (int64_t first = next.fetch_add(tiles_per_step); first < n_tiles; first = next.fetch_add(tiles_per_step)) {
            const int64_t end = std::min(first + tiles_per_step, n_tiles);
            const uint8_t * const from = data + static_cast<size_t>(first * tile_rows) * row_bytes;
            for (int64_t tile = first; tile < end; ++tile) {
                const bool full = (tile + 1) * tile_rows <= rows;
                const uint8_t * const these = full ? data + static_cast<size_t>(tile * tile_rows) * row_bytes : last.data();
                pack_tile(type, signed_quants, these, row_bytes, inner, tiles + static_cast<size_t>(tile) * tile_size);
            }
            source.let_go(from, static_cast<size_t>(std::min(end * tile_rows, rows) - first * tile_rows) * row_bytes);
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
    source.let_go(data, size);  // pages that two steps shared
    source.bring_little(data, size);
}

}  // namespace rim::kernels
