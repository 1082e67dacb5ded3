// session.h: one context in which questions are read, thought about in memory blocks, and answered.
//
// The method (arXiv 2605.30343): question, then K fixed blocks of memory tokens, in one forward pass; after every block a
// readout, which sees the question and the blocks up to its own. The readouts are kept apart by sequence membership alone
// (cells.h), so that one llama_decode gives all of them, each equal to what a plain run of the same tokens gives.
//
// The cache keeps visible text only. Blocks, answer prefixes and answers run on top of it and are removed again, so a
// conversation pays for new text alone. A Session holds one or more lanes: questions side by side in one context.
//
// One call at a time: a second thread gets Error busy; cancel() may come from any thread at any time. After any failure
// everything from the first submitted position on is removed from every sequence concerned, and the session is usable.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <llama-cpp.h>
#include <llama.h>

#include "cells.h"
#include "context.h"
#include "crew.h"
#include "gate.h"
#include "hidden.h"
#include "logits.h"
#include "logits_place.h"
#include "model.h"
#include "pass.h"
#include "sampler.h"

namespace rim {

// The memory-slot layout: count blocks of begin, size x memory, end; prefix opens every readout.
struct Blocks {
    llama_token begin_id = -1;
    llama_token memory_id = -1;
    llama_token end_id = -1;
    int32_t size = 0;
    int32_t count = 0;  // most blocks that the session will run
    std::vector<llama_token> prefix;

    int32_t width() const noexcept { return size + 2; }  // tokens of one block
};

using Row = std::shared_ptr<const std::vector<float>>;

// What the model would say first after one block.
struct ReadoutState {
    int32_t lane = 0;
    int32_t block = 0;        // 1..K; 0: direct, no block run
    llama_token token = -1;   // top token; never a memory token
    float probability = 0;    // of it, in the softmax over the raw logits
    float entropy = 0;        // of that softmax, nats
    Row hidden;               // [n_embd] after the final norm at the block's end token (block 0: at the last visible token)
    Row logits;               // [n_vocab] raw; only when asked for
};

// What the last prefill, think or extend did, in tokens.
struct PassCounts {
    int64_t reused = 0;  // visible tokens that were in the cache
    int64_t text = 0;    // visible tokens evaluated
    int64_t slots = 0;   // tokens of memory blocks evaluated
    int64_t prefix = 0;  // answer-prefix tokens evaluated
    int64_t passes = 0;  // llama_decode calls
};

// progress(done, total) in tokens, between passes; false stops with Error cancelled.
using Progress = std::function<bool(int64_t, int64_t)>;

struct ThinkOptions {
    bool all_readouts = true;  // else only the last block is read out
    bool hidden = false;
    bool logits = false;
    Progress progress;  // when set, passes are cut at n_ubatch instead of n_batch tokens (the results are the same)
};

struct Target {
    int32_t lane = 0;
    int32_t block = 0;
};

struct DecodeOptions {
    Sampling sampling;  // target i draws with seed + i
    int32_t max_tokens = 0;
    std::vector<std::string> stop;
    std::function<bool(size_t, const std::string &)> on_text;  // (index of target, text); false stops that target
};

enum class Finish { stop, length, context, cancelled, callback };

struct Decoded {
    int32_t lane = 0;
    int32_t block = 0;
    std::vector<llama_token> tokens;  // without the end-of-generation token
    std::vector<double> logprobs;     // of each sampled token, that one included; softmax over the raw logits
    std::vector<double> seconds;      // from the call to each of these
    std::string text;                 // UTF-8, cut before a stop string
    Finish finish = Finish::length;
};

// Asked now and then by the thread that computes, e.g. whether Ctrl-C was pressed. A returned exception stops the work and is
// thrown by the call. One for the process; set once, before the first session.
void set_interrupt_poll(std::exception_ptr (*poll)());

class Session {
  public:
    // No blocks: answers directly, one sequence per lane. Throws Error option, unsupported, backend.
    Session(std::shared_ptr<const Model> model, std::optional<Blocks> blocks, const SessionOptions & options);
    ~Session();
    Session(const Session &) = delete;
    Session & operator=(const Session &) = delete;

    int32_t n_ctx() const noexcept { return n_ctx_; }
    int32_t n_batch() const noexcept { return n_batch_; }
    int32_t n_lanes() const noexcept { return n_lanes_; }
    int32_t n_threads() const noexcept { return n_threads_; }
    MemoryUse memory() const noexcept { return memory_; }
    PassCounts counts() const;             // allowed at any time
    int64_t cached(int32_t lane);          // visible tokens in the lane's cache

    // Make the lane hold exactly `tokens`: the common prefix stays, the rest is evaluated. May be called while a user types.
    void prefill(const std::vector<llama_token> & tokens, int32_t lane, const Progress & progress);

    // prompts[i]: the whole visible text of lane first_lane + i. Runs the new text, blocks 1..depth and the answer prefix of
    // every block that is read, in one llama_decode if they fit n_batch. depth 0: direct. Returns the readouts of each lane.
    // Throws Error context_full before any work.
    std::vector<std::vector<ReadoutState>> think(const std::vector<std::vector<llama_token>> & prompts, int32_t depth,
                                                 int32_t first_lane, const ThinkOptions & options);

    // After think(): run the blocks up to `depth` on top of those there. Returns the new readouts of each lane.
    std::vector<std::vector<ReadoutState>> extend(int32_t depth, const ThinkOptions & options);

    // Answer from readouts of the last think() or extend(), all in parallel. May be called again, for the same or other
    // targets, until the next think() or prefill(). cancel() ends it with what was said so far.
    std::vector<Decoded> decode(const std::vector<Target> & targets, const DecodeOptions & options);

    // Give readouts of the last think() or extend() one answer token each, in one pass of the width that decode() would use.
    // Returns what the model would say next; the readouts then start there, for more tokens or for decode().
    // Throws Error context_full before any work; unsupported for models with one state per sequence.
    std::vector<ReadoutState> advance(const std::vector<Target> & targets, const std::vector<llama_token> & tokens);

    void release();                             // remove blocks; visible text stays
    void reset(std::optional<int32_t> lane);    // forget visible text, of one lane or all
    void cancel() noexcept { cancel_ = true; }  // sticky
    void clear_cancel() noexcept { cancel_ = false; }
    void close();  // stops the work of another thread, waits for it, frees the memory
    bool closed() const { return gate_.closed(); }

  private:
    struct Readout {  // where an answer starts
        Target target;
        llama_seq_id sequence = 0;
        llama_pos next = 0;  // position of its first token
        Row logits;
    };
    struct Thought {  // what runs on top of the visible text
        bool active = false;
        int32_t first_lane = 0;
        int32_t n_lanes = 0;
        int32_t depth = 0;
        int64_t cells = 0;
        std::vector<Readout> readouts;
    };
    struct Read {  // a row to fetch after the pass
        size_t place;
        bool hidden;
        bool logits;
        size_t readout;  // index into pending_
        size_t state;    // index into the list of states
    };

    // session.cpp
    void check_lane(int32_t lane) const;
    void check_tokens(const std::vector<llama_token> & tokens) const;
    void check_depth(int32_t depth) const;
    std::vector<std::vector<ReadoutState>> by_lane(std::vector<ReadoutState> && states) const;
    const Readout & find_readout(const Target & target) const;

    // session_text.cpp: visible text
    int32_t reusable(int32_t lane, const std::vector<llama_token> & tokens) const;
    int64_t visible_cells() const;
    void make_room(int32_t first_lane, int32_t n_lanes, int64_t needed, int64_t longest);
    int32_t cut_text(int32_t lane, int32_t keep);
    void cut_back(int32_t lane, int32_t keep);
    void forget(int32_t lane);
    void drop_thought();

    // decode.cpp
    void remove_answer(int32_t lane, llama_seq_id sequence, llama_pos start, llama_pos next);

    // session_pass.cpp: building and running passes
    void start_work();
    void finish_work();
    void add_text(int32_t lane, const std::vector<llama_token> & tokens, int32_t from);
    void add_blocks(int32_t lane, llama_pos start, int32_t from, int32_t to, const ThinkOptions & options, size_t last_text,
                    std::vector<ReadoutState> & states);
    void evaluate(const ThinkOptions & options, std::vector<ReadoutState> & states);
    size_t slice_end(size_t at, bool fine) const;
    struct Logits {
        const float * row;     // valid until the next pass
        ReadoutState * state;  // to be filled with what it says
    };
    std::vector<Row> read_rows(const std::vector<Logits> & logits);
    void side_by_side(int64_t n, const std::function<void(int64_t)> & work);
    std::shared_ptr<std::vector<float>> take_row();
    void submit(size_t begin, size_t end);
    const float * logits_of(size_t place);
    void throw_if_stopped();
    bool stop_requested() const noexcept { return cancel_ || closing_; }
    static bool on_abort(void * session);

    std::shared_ptr<const Model> model_;
    std::optional<Blocks> blocks_;
    int32_t n_vocab_;
    int32_t n_ctx_ = 0;
    int32_t n_batch_ = 0;
    int32_t n_ubatch_ = 0;
    int32_t n_lanes_ = 0;
    int32_t n_threads_ = 0;
    int64_t position_limit_ = 0;  // rows of a learned position table
    bool fine_slices_ = false;    // a GPU computes: look for cancel() between micro-batches
    MemoryUse memory_;
    Banned banned_;
    Pass pass_;
    HiddenTap tap_;
    llama_context_ptr context_;
    LogitsPlace logits_place_;
    Crew crew_;
    std::optional<Cells> cells_;

    std::vector<std::vector<llama_token>> texts_;  // visible text in the cache, per lane
    Thought thought_;
    std::vector<Readout> pending_;  // readouts of the pass being built
    std::vector<Read> reads_;
    std::vector<size_t> lane_ends_;  // places in the pass where slices must end (memories that take one lane at a time)
    std::vector<std::shared_ptr<std::vector<float>>> rows_;  // row storage, reused when nobody else holds it
    std::vector<llama_token_data> scratch_;
    PassCounts work_counts_;

    Gate gate_;
    std::atomic<bool> cancel_{false};
    std::atomic<bool> closing_{false};
    std::exception_ptr interrupt_;  // from the poll
    std::chrono::steady_clock::time_point last_poll_;
    mutable std::mutex counts_mutex_;
    PassCounts counts_;
};

}  // namespace rim
