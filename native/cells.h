// cells.h: which sequences a question uses, and cutting them back.
#pragma once

#include <cstdint>

#include <llama.h>

namespace rim {

// The memory of one context, seen as lanes. Lane l owns the sequences l*per_lane .. l*per_lane + per_lane - 1. With blocks,
// per_lane is the block count K: visible text lies in all of them, block k in the sequences k-1..K-1 of its lane, and readout
// k's answer in sequence k-1 alone, so membership isolates the readouts from each other and from later blocks.
//
// Recurrent and hybrid memories hold one state per sequence and cannot be cut in the middle. There per_lane is 2: the first
// sequence keeps the visible text, the second is a copy of it that an answer runs on and that is then dropped as a whole.
class Cells {
  public:
    Cells(llama_memory_t memory, int32_t n_lanes, int32_t per_lane, bool can_cut)
        : memory_(memory), n_lanes_(n_lanes), per_lane_(per_lane), can_cut_(can_cut) {}

    int32_t first(int32_t lane) const noexcept { return lane * per_lane_; }
    int32_t per_lane() const noexcept { return per_lane_; }
    bool can_cut() const noexcept { return can_cut_; }

    // Remove everything at positions >= p0 from every sequence of the lane. False if the memory cannot: then nothing of the
    // lane is left.
    bool cut(int32_t lane, llama_pos p0);

    // Remove positions >= p0 from the sequences first(lane) + from .. end of the lane only. As cut().
    bool cut_from(int32_t lane, int32_t from, llama_pos p0);

    // Remove positions >= p0 of one sequence. False if the memory cannot (nothing is removed then).
    bool cut_sequence(llama_seq_id sequence, llama_pos p0);

    void clear(int32_t lane);

    // Whether position 0 of the lane's text is still there (a sliding-window cache may drop old cells when it fills up, and
    // then the text cannot be cut back any more).
    bool intact(int32_t lane) const;

    // Memories that cannot be cut: make the work sequence a copy of the visible one / drop it. Returns the work sequence.
    llama_seq_id open_work(int32_t lane);
    void close_work(int32_t lane);

  private:
    llama_memory_t memory_;
    int32_t n_lanes_;
    int32_t per_lane_;
    bool can_cut_;
};

}  // namespace rim
