// ahead.h: what a thread reads next, brought nearer while it waits for the others.
//
// Reading memory is what decoding a token takes time for, and memory is idle while one thread rotates a query or adds two rows and the
// others wait, and whenever a thread is done before the others. But the graph is known: so a thread that waits fetches the beginning of its
// share of the next product, and before an attention the first keys and values of its heads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ggml_private.h"

namespace rim::kernels {

// Pieces of memory at equal distances.
struct Run {
    const char * first = nullptr;
    size_t bytes = 0, step = 0;  // of a piece; from one to the next
    int64_t count = 0;

    // Begins to bring a piece, from `offset` on at most so many bytes of it, into the second cache. Memory that is gone does no harm.
    void fetch(int64_t piece, size_t offset, size_t at_most) const noexcept {
        const char * const from = first + static_cast<size_t>(piece) * step;
        for (const size_t end = offset + at_most < bytes ? offset + at_most : bytes; offset < end; offset += 64) {
            __builtin_prefetch(from + offset, 0, 2);
        }
    }
};

// What a thread reads at the beginning of the next operations.
class Ahead {
  public:
    // Of the calling thread.
    static Ahead & own() noexcept;

    // The thread begins to read for `op`.
    void reach(const ggml_tensor * op) noexcept;

    // The thread has done its share of `op`: finds out what comes after, unless that is known.
    void look(const ggml_private::ComputeParams & params, const ggml_tensor * op) noexcept;

    // Begins to fetch some more; false if nothing is left.
    bool fetch() noexcept {
        constexpr size_t some = 128;  // bytes: not to keep a thread that need not wait any more
        for (; run_ < n_; ++run_, piece_ = 0) {
            const Run & run = entries_[run_].run;
            if (piece_ < run.count) {
                run.fetch(piece_, offset_, some);
                offset_ += some;
                if (offset_ >= run.bytes) {
                    offset_ = 0;
                    ++piece_;
                }
                return true;
            }
        }
        return false;
    }

  private:
    struct Entry {
        const ggml_tensor * op;
        Run run;
    };

    void begin_run(int index) noexcept;
    void add(const ggml_tensor * op, const Run & run) noexcept;

    std::array<Entry, 3> entries_;  // keys, values, weights
    int first_ = 0, n_ = 0;         // entries of operations that are not reached
    int run_ = 0;                   // where fetching is: entry, piece, bytes of the piece
    int64_t piece_ = 0;
    size_t offset_ = 0;
};

}  // namespace rim::kernels
