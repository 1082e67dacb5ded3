// session_text.cpp: the visible text in the cache: what can be reused, what must go.
#include <algorithm>
#include <string>

#include "errors.h"
#include "session.h"

namespace rim {

// Length of the common prefix of the lane's text and `tokens`.
int32_t Session::reusable(int32_t lane, const std::vector<llama_token> & tokens) const {
    const std::vector<llama_token> & text = texts_[static_cast<size_t>(lane)];
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(text.size(), tokens.size()));
    return static_cast<int32_t>(std::mismatch(text.begin(), end, tokens.begin()).first - text.begin());
}

int64_t Session::visible_cells() const {
    int64_t cells = 0;
    for (const auto & text : texts_) {
        cells += static_cast<int64_t>(text.size());
    }
    return cells;
}

// Checks that `needed` cells, with a longest lane of `longest` positions, fit; other lanes forget their text if that helps.
void Session::make_room(int32_t first_lane, int32_t n_lanes, int64_t needed, int64_t longest) {
    if (longest > position_limit_) {
        throw context_full("the text with its blocks needs " + std::to_string(longest) + " positions, but the model has " +
                               std::to_string(position_limit_) + ": shorten the conversation",
                           longest, position_limit_);
    }
    if (needed > n_ctx_) {
        throw context_full("the text with its blocks needs " + std::to_string(needed) + " tokens, but the context holds " +
                               std::to_string(n_ctx_) + ": shorten the conversation or use a larger context",
                           needed, n_ctx_);
    }
    int64_t others = 0;
    for (int32_t lane = 0; lane < n_lanes_; ++lane) {
        if (lane < first_lane || lane >= first_lane + n_lanes) {
            others += static_cast<int64_t>(texts_[static_cast<size_t>(lane)].size());
        }
    }
    if (needed + others <= n_ctx_) {
        return;
    }
    for (int32_t lane = 0; lane < n_lanes_; ++lane) {
        if (lane < first_lane || lane >= first_lane + n_lanes) {
            forget(lane);
        }
    }
}

// Cuts the lane's text back to `keep` tokens, or to none if the memory cannot be cut there. Returns what is left.
int32_t Session::cut_text(int32_t lane, int32_t keep) {
    std::vector<llama_token> & text = texts_[static_cast<size_t>(lane)];
    if (keep == static_cast<int32_t>(text.size())) {
        return keep;
    }
    if (keep == 0 || !cells_->intact(lane)) {
        forget(lane);
        return 0;
    }
    if (!cells_->cut(lane, keep)) {
        text.clear();
        return 0;
    }
    text.resize(static_cast<size_t>(keep));
    return keep;
}

void Session::forget(int32_t lane) {
    cells_->clear(lane);
    texts_[static_cast<size_t>(lane)].clear();
}

void Session::drop_thought() {
    if (thought_.active && thought_.cells > 0 && cells_) {
        for (int32_t lane = thought_.first_lane; lane < thought_.first_lane + thought_.n_lanes; ++lane) {
            std::vector<llama_token> & text = texts_[static_cast<size_t>(lane)];
            if (!cells_->cut(lane, static_cast<llama_pos>(text.size()))) {
                text.clear();
            }
        }
    }
    thought_.active = false;
    thought_.cells = 0;
    thought_.readouts.clear();
}

// After a failure: removes what was submitted behind the `keep` visible tokens.
void Session::cut_back(int32_t lane, int32_t keep) {
    tap_.disarm();
    std::vector<llama_token> & text = texts_[static_cast<size_t>(lane)];
    text.resize(static_cast<size_t>(keep));
    if (!cells_->cut(lane, keep)) {
        text.clear();
    }
}

void Session::release() {
    Gate::Entry entry(gate_);
    drop_thought();
}

void Session::reset(std::optional<int32_t> lane) {
    Gate::Entry entry(gate_);
    if (lane) {
        check_lane(*lane);
    }
    drop_thought();
    for (int32_t l = 0; l < n_lanes_; ++l) {
        if (!lane || l == *lane) {
            forget(l);
        }
    }
}

}  // namespace rim
