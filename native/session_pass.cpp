// session_pass.cpp: building the coupled pass, running it in slices, reading its rows.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "abort_guard.h"
#include "errors.h"
#include "log.h"
#include "session.h"

namespace rim {

namespace {

std::exception_ptr (*interrupt_poll)() = nullptr;

constexpr auto poll_interval = std::chrono::milliseconds(50);

}  // namespace

void set_interrupt_poll(std::exception_ptr (*poll)()) {
    interrupt_poll = poll;
}

// ---- building passes

void Session::add_text(int32_t lane, const std::vector<llama_token> & tokens, int32_t from) {
    const int32_t count = cells_->can_cut() ? cells_->per_lane() : 1;
    for (auto i = static_cast<size_t>(from); i < tokens.size(); ++i) {
        pass_.add(tokens[i], static_cast<llama_pos>(i), cells_->first(lane), count, false);
    }
    work_counts_.reused += from;
    work_counts_.text += static_cast<int64_t>(tokens.size()) - from;
}

// Adds the blocks from..to of a lane whose text ends at position `start`, or the direct readout if `to` is 0. The last visible
// token, where it is evaluated, is at place `last_text`.
void Session::add_blocks(int32_t lane, llama_pos start, int32_t from, int32_t to, const ThinkOptions & options, size_t last_text,
                         std::vector<ReadoutState> & states) {
    static const std::vector<llama_token> no_prefix;
    const std::vector<llama_token> & prefix = blocks_ ? blocks_->prefix : no_prefix;
    const int32_t width = blocks_ ? blocks_->width() : 0;
    const llama_seq_id first = cells_->first(lane);
    const size_t first_pending = pending_.size();

    const auto add_readout = [&](int32_t block, size_t end_place) {
        const auto next = start + block * width + static_cast<llama_pos>(prefix.size());
        Readout readout;
        readout.target = {lane, block};
        readout.sequence = first + std::max(block - 1, 0);
        readout.next = next;
        pending_.push_back(readout);
        ReadoutState state;
        state.lane = lane;
        state.block = block;
        states.push_back(state);
        if (prefix.empty() || options.hidden) {
            pass_.set_output(end_place);
            reads_.push_back({end_place, options.hidden, prefix.empty(), pending_.size() - 1, states.size() - 1});
        }
    };

    // All blocks first: their cells then lie as in a plain run, which makes the results the same to the last bit.
    for (int32_t block = from; block <= to; ++block) {
        const llama_pos at = start + (block - 1) * width;
        const llama_seq_id sequence = first + block - 1;
        const int32_t count = cells_->per_lane() - (block - 1);
        pass_.add(blocks_->begin_id, at, sequence, count, false);
        for (int32_t slot = 0; slot < blocks_->size; ++slot) {
            pass_.add(blocks_->memory_id, at + 1 + slot, sequence, count, false);
        }
        const size_t end_place = pass_.add(blocks_->end_id, at + 1 + blocks_->size, sequence, count, false);
        work_counts_.slots += width;
        if (options.all_readouts || block == to) {
            add_readout(block, end_place);
        }
    }
    if (to == 0) {
        add_readout(0, last_text);
    }
    if (prefix.empty()) {
        return;
    }
    for (size_t r = first_pending; r < pending_.size(); ++r) {
        const Readout & readout = pending_[r];
        size_t place = 0;
        for (size_t i = 0; i < prefix.size(); ++i) {
            const llama_pos at = readout.next - static_cast<llama_pos>(prefix.size() - i);
            place = pass_.add(prefix[i], at, readout.sequence, 1, i + 1 == prefix.size());
        }
        work_counts_.prefix += static_cast<int64_t>(prefix.size());
        reads_.push_back({place, false, true, r, states.size() - (pending_.size() - r)});
    }
}

// ---- running passes

bool Session::on_abort(void * session) {
    auto * self = static_cast<Session *>(session);
    if (self->stop_requested()) {
        return true;
    }
    if (interrupt_poll) {
        const auto now = std::chrono::steady_clock::now();
        if (now - self->last_poll_ >= poll_interval) {
            self->last_poll_ = now;
            self->interrupt_ = interrupt_poll();
        }
    }
    return self->interrupt_ != nullptr;
}

void Session::throw_if_stopped() {
    if (interrupt_) {
        std::rethrow_exception(std::exchange(interrupt_, nullptr));
    }
    if (stop_requested()) {
        throw Error(ErrorKind::cancelled, "cancelled");
    }
}

// One llama_decode of the places begin .. end - 1. The caller cleans the sequences when it throws.
void Session::submit(size_t begin, size_t end) {
    throw_if_stopped();
    LogCapture log;
    int32_t status = 0;
    std::string reason;
    try {
        AbortGuard guard;
        const bool one_micro_batch = !fine_slices_ && cells_->can_cut() && end - begin <= static_cast<size_t>(n_ubatch_);
        const LogitsPlace::Watch watch(logits_place_, one_micro_batch);
        status = llama_decode(context_.get(), pass_.slice(begin, end));
        if (status == 0 && fine_slices_) {
            llama_synchronize(context_.get());  // a GPU would go on in the background, out of reach of cancel()
        }
    } catch (const std::exception & error) {
        status = -3;
        reason = error.what();
    }
    ++work_counts_.passes;
    if (status == 0) {
        return;
    }
    throw_if_stopped();
    if (status == 1) {
        throw context_full("no room in the context for " + std::to_string(end - begin) + " more tokens: shorten the conversation or " +
                               "use a larger context",
                           static_cast<int64_t>(end - begin), n_ctx_);
    }
    reason = reason.empty() ? log.reason() : reason;
    throw Error(ErrorKind::backend, "libllama failed to compute " + std::to_string(end - begin) + " tokens (status " +
                                        std::to_string(status) + ")" + (reason.empty() ? "" : ": " + reason));
}

// The logits of a token of the last pass, of those that were asked for; until the next pass.
const float * Session::logits_of(size_t place) {
    return logits_place_.row(llama_get_logits_ith(context_.get(), static_cast<int32_t>(place)));
}

// End of the slice that starts at `at`. Slices end at multiples of n_ubatch, where libllama would split anyway, so that the
// results do not depend on them; the last one is as large as n_batch allows, to keep the blocks in one pass.
size_t Session::slice_end(size_t at, bool fine) const {
    size_t end = pass_.size();
    for (const size_t lane_end : lane_ends_) {
        if (lane_end > at) {
            end = std::min(end, lane_end);
            break;
        }
    }
    const auto batch = static_cast<size_t>(n_batch_);
    const auto ubatch = static_cast<size_t>(n_ubatch_);
    const size_t left = end - at;
    if (fine) {
        return at + std::min(left, ubatch);
    }
    if (left <= batch) {
        return end;
    }
    const size_t front = (left - batch + ubatch - 1) / ubatch * ubatch;
    return at + std::min(front, batch / ubatch * ubatch);
}

void Session::evaluate(const ThinkOptions & options, std::vector<ReadoutState> & states) {
    const size_t total = pass_.size();
    const bool fine = fine_slices_ || options.progress;
    size_t next_read = 0;
    for (size_t at = 0; at < total;) {
        const size_t end = slice_end(at, fine);
        size_t last_read = next_read;
        bool hidden = false;
        for (; last_read < reads_.size() && reads_[last_read].place < end; ++last_read) {
            hidden = hidden || reads_[last_read].hidden;
        }
        if (hidden) {
            tap_.arm();
        } else {
            tap_.disarm();
        }
        submit(at, end);
        std::vector<size_t> readouts;
        std::vector<Logits> logits;
        for (size_t r = next_read; r < last_read; ++r) {
            // Outputs come in batch order; a graph that does not pick rows gives a state for every token.
            const auto rows = static_cast<size_t>(std::max<int64_t>(tap_.count(), 0));
            const size_t row = rows == end - at ? reads_[r].place - at : r - next_read;
            if (reads_[r].hidden && rows != end - at && rows != last_read - next_read) {
                throw Error(ErrorKind::unsupported, model_->path() + " (" + model_->architecture() +
                                                        ") does not give the state after its final norm");
            }
            ReadoutState & state = states[reads_[r].state];
            if (reads_[r].hidden) {
                const float * const values = tap_.row(row);
                state.hidden = std::make_shared<std::vector<float>>(values, values + model_->n_embd());
            }
            if (reads_[r].logits) {
                readouts.push_back(reads_[r].readout);
                logits.push_back({logits_of(reads_[r].place - at), &state});
            }
        }
        const std::vector<Row> rows = read_rows(logits);
        for (size_t i = 0; i < rows.size(); ++i) {
            pending_[readouts[i]].logits = rows[i];
            if (options.logits) {
                logits[i].state->logits = rows[i];
            }
        }
        next_read = last_read;
        at = end;
        if (options.progress && !options.progress(static_cast<int64_t>(at), static_cast<int64_t>(total))) {
            throw Error(ErrorKind::cancelled, "cancelled by the progress callback");
        }
    }
    tap_.disarm();
}

// Calls work(i) for i from 0 to n - 1, by the threads that computed the pass. `work` must not throw.
void Session::side_by_side(int64_t n, const std::function<void(int64_t)> & work) {
    crew_.run(fine_slices_ ? 1 : llama_n_threads_batch(context_.get()), n, work);
}

// Keeps rows of logits and what each says first.
std::vector<Row> Session::read_rows(const std::vector<Logits> & logits) {
    std::vector<std::shared_ptr<std::vector<float>>> rows;
    for (const Logits & one : logits) {
        if (!one.row) {
            throw Error(ErrorKind::backend, "libllama gives no logits for a readout");
        }
        rows.push_back(take_row());
    }
    side_by_side(static_cast<int64_t>(rows.size()), [&](int64_t index) {
        const auto i = static_cast<size_t>(index);
        std::vector<float> & row = *rows[i];
        ReadoutState & state = *logits[i].state;
        std::memcpy(row.data(), logits[i].row, row.size() * sizeof(float));
        const RowStats stats = row_stats(row.data(), n_vocab_, true);
        state.token = top_token(row.data(), n_vocab_, stats, banned_);
        state.probability = static_cast<float>(std::exp(stats.log_probability(row[static_cast<size_t>(state.token)])));
        state.entropy = static_cast<float>(stats.entropy);
    });
    return {rows.begin(), rows.end()};
}

std::shared_ptr<std::vector<float>> Session::take_row() {
    for (const auto & row : rows_) {
        if (row.use_count() == 1) {
            return row;
        }
    }
    rows_.push_back(std::make_shared<std::vector<float>>(static_cast<size_t>(n_vocab_)));
    return rows_.back();
}

void Session::start_work() {
    pass_.clear();
    pending_.clear();
    reads_.clear();
    lane_ends_.clear();
    work_counts_ = {};
}

void Session::finish_work() {
    std::lock_guard<std::mutex> lock(counts_mutex_);
    counts_ = work_counts_;
}

}  // namespace rim
