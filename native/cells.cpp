// cells.cpp: sequence bookkeeping over llama_memory.
#include "cells.h"

namespace rim {

bool Cells::cut(int32_t lane, llama_pos p0) {
    if (can_cut_ && n_lanes_ == 1 && per_lane_ > 1 && p0 > 0) {
        // One walk over the cells instead of one per sequence; memories that run blocks can do that.
        if (llama_memory_seq_rm(memory_, -1, p0, -1)) {
            return true;
        }
        clear(lane);
        return false;
    }
    return cut_from(lane, 0, p0);
}

bool Cells::cut_from(int32_t lane, int32_t from, llama_pos p0) {
    if (p0 <= 0) {
        clear(lane);
        return true;
    }
    for (int32_t s = from; s < per_lane_; ++s) {
        if (!cut_sequence(first(lane) + s, p0)) {
            clear(lane);
            return false;
        }
    }
    return true;
}

bool Cells::cut_sequence(llama_seq_id sequence, llama_pos p0) {
    return llama_memory_seq_rm(memory_, sequence, p0, -1);
}

void Cells::clear(int32_t lane) {
    if (n_lanes_ == 1) {
        llama_memory_clear(memory_, false);
        return;
    }
    for (int32_t s = 0; s < per_lane_; ++s) {
        llama_memory_seq_rm(memory_, first(lane) + s, -1, -1);
    }
}

bool Cells::intact(int32_t lane) const {
    return !can_cut_ || llama_memory_seq_pos_min(memory_, first(lane)) == 0;
}

llama_seq_id Cells::open_work(int32_t lane) {
    const llama_seq_id work = first(lane) + 1;
    llama_memory_seq_rm(memory_, work, -1, -1);
    llama_memory_seq_cp(memory_, first(lane), work, -1, -1);
    return work;
}

void Cells::close_work(int32_t lane) {
    llama_memory_seq_rm(memory_, first(lane) + 1, -1, -1);
}

}  // namespace rim
