// chunks.h: how work is shared out between threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernel.h"

namespace rim::kernels {

template <typename Integer>
Integer rounded_up(Integer value, Integer step) {
    return (value + step - 1) / step * step;
}

// How many of n neighbours each thread takes where they go in equal shares; the last threads may have fewer. SwiGLU's columns are shared out
// as the rows of the products before it are.
constexpr int64_t share_of(int64_t n, int n_threads) noexcept {
    return (n + n_threads - 1) / n_threads;
}

// The chunks that a product is cut into, which the threads take one after another: large ones first, then smaller ones.
class Chunks {
  public:
    Chunks(const Kernel & kernel, int64_t n_tiles, int64_t tile_size, int64_t n_tokens, int n_threads) : n_tiles_(n_tiles), n_tokens_(n_tokens) {
        const int64_t share = share_of(n_tiles, n_threads);
        const bool is_few = n_tokens <= kernel.few;
        if (is_few || (share * n_threads - n_tiles) * 8 <= n_tiles) {
            // Of each thread's share a long run, which memory is read best in, then shorter ones until all are done. Where even these would
            // be done sooner than the count of them travels between cores, whole shares.
            constexpr int64_t worth_a_turn = 256 << 10;  // bytes, where reading weights is all that takes time
            const bool in_turns = share * tile_size > (is_few ? 4 * worth_a_turn : 128 * worth_a_turn / n_tokens);
            n_shares_ = n_threads;
            share_ = share;
            large_ = !in_turns ? share : is_few ? share * 3 / 4 : std::max<int64_t>(share * 7 / 8 / 4 * 4, 4);
            small_ = is_few ? worth_a_turn / tile_size + 1 : 4;
            count_ = n_shares_ * (1 + (share_ - large_ + small_ - 1) / small_);
        } else {
            // Few tiles for each thread: four are widened together, as many for each; what is left is shared out. All tokens at once where there are
            // enough chunks so: the work of widening is worth it for 24 tokens.
            constexpr int64_t per_thread = 6;  // so that a thread that was interrupted holds nobody up for long
            large_ = 4;
            n_large_ = n_tiles / (large_ * n_threads) * n_threads;
            small_ = std::max<int64_t>(share_of(n_tiles - n_large_ * large_, n_threads), 1);
            const int64_t groups = n_large_ + (n_tiles - n_large_ * large_ + small_ - 1) / small_;
            const int64_t parts = std::clamp<int64_t>((per_thread * n_threads + groups - 1) / groups, 1, std::max<int64_t>(n_tokens / 24, 1));
            tokens_ = rounded_up<int64_t>((n_tokens + parts - 1) / parts, kernel.token_step);
            across_ = (n_tokens + tokens_ - 1) / tokens_;
            count_ = groups * across_;
        }
    }

    int64_t count() const { return count_; }

    // A thread's first chunk is of its own share, where there are shares.
    Part part(int64_t chunk) const {
        if (n_shares_ > 0) {
            const int64_t share = chunk % n_shares_, before = chunk / n_shares_;  // chunks of the share
            const int64_t end = std::min((share + 1) * share_, n_tiles_);
            const int64_t tile = std::min(share * share_ + (before == 0 ? 0 : large_ + (before - 1) * small_), end);
            return {tile, std::min(tile + (before == 0 ? large_ : small_), end), 0, n_tokens_};
        }
        const int64_t group = chunk / across_, token = chunk % across_ * tokens_;
        const int64_t tile = std::min(group, n_large_) * large_ + std::max<int64_t>(group - n_large_, 0) * small_;
        const int64_t end = std::min(tile + (group < n_large_ ? large_ : small_), n_tiles_);
        return {tile, end, token, std::min(token + tokens_, n_tokens_)};
    }

  private:
    int64_t n_tiles_, n_tokens_, count_;
    int64_t large_, small_;             // tiles of a chunk
    int64_t n_shares_ = 0, share_ = 0;  // where each thread has a share: its tiles
    int64_t n_large_ = 0;               // where not
    int64_t tokens_ = 0, across_ = 0;   // tokens of a chunk; chunks that share tiles
};

}  // namespace rim::kernels
