// session.cpp: lanes, the prefix cache, prefill, think and extend.
#include "session.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "errors.h"

namespace rim {

namespace {

bool has_gpu() {
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        const enum ggml_backend_dev_type type = ggml_backend_dev_type(ggml_backend_dev_get(i));
        if (type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU) {
            return true;
        }
    }
    return false;
}

// Runs `undo` unless the work was finished.
template <typename Undo>
class OnFailure {
  public:
    explicit OnFailure(Undo undo) : undo_(std::move(undo)) {}
    ~OnFailure() {
        if (armed_) {
            undo_();
        }
    }
    OnFailure(const OnFailure &) = delete;
    OnFailure & operator=(const OnFailure &) = delete;
    void done() noexcept { armed_ = false; }

  private:
    Undo undo_;
    bool armed_ = true;
};

void check_blocks(const Model & model, const Blocks & blocks) {
    for (const llama_token token : {blocks.begin_id, blocks.memory_id, blocks.end_id}) {
        model.check_token(token);
    }
    for (const llama_token token : blocks.prefix) {
        model.check_token(token);
    }
    constexpr int32_t most_slots = 65536;
    const auto most_blocks = static_cast<int32_t>(llama_max_parallel_sequences());
    if (blocks.size < 1 || blocks.size > most_slots || blocks.count < 1 || blocks.count > most_blocks) {
        throw Error(ErrorKind::option, "memory blocks have a size in 1.." + std::to_string(most_slots) + " and a count in 1.." +
                                           std::to_string(most_blocks) + ", not " + std::to_string(blocks.size) + " and " +
                                           std::to_string(blocks.count));
    }
    if (!model.coupled()) {
        throw Error(ErrorKind::unsupported, model.path() + " cannot run memory blocks: " + model.coupled_reason());
    }
}

}  // namespace

// ---- making and closing

Session::Session(std::shared_ptr<const Model> model, std::optional<Blocks> blocks, const SessionOptions & options)
    : model_(std::move(model)),
      blocks_(std::move(blocks)),
      n_vocab_(model_->n_vocab()),
      n_lanes_(options.n_lanes),
      banned_(n_vocab_),
      pass_(static_cast<int32_t>(llama_max_parallel_sequences())),
      tap_(model_->n_embd()) {
    if (blocks_) {
        check_blocks(*model_, *blocks_);
    }
    const bool can_cut = !llama_model_is_recurrent(model_->raw()) && !llama_model_is_hybrid(model_->raw());
    const int64_t per_lane = can_cut ? (blocks_ ? blocks_->count : 1) : 2;
    const auto most = static_cast<int64_t>(llama_max_parallel_sequences());
    if (n_lanes_ < 1 || n_lanes_ * per_lane > most) {
        throw Error(ErrorKind::option, "n_lanes is " + std::to_string(n_lanes_) + ", but must be in 1.." +
                                           std::to_string(std::max<int64_t>(1, most / per_lane)) + " (lanes x blocks <= " +
                                           std::to_string(most) + ")");
    }
    const auto n_sequences = static_cast<int32_t>(n_lanes_ * per_lane);
    const bool two_rows = blocks_ && !blocks_->prefix.empty();  // state at the block's end, logits after the prefix
    llama_context_params params = context_params(options, n_sequences, two_rows ? 2 * n_sequences : n_sequences);
    params.abort_callback = on_abort;
    params.abort_callback_data = this;
    params.cb_eval = HiddenTap::callback;
    params.cb_eval_user_data = &tap_;
    context_ = make_context(*model_, params, &memory_);

    n_ctx_ = static_cast<int32_t>(llama_n_ctx(context_.get()));
    n_batch_ = static_cast<int32_t>(llama_n_batch(context_.get()));
    n_ubatch_ = static_cast<int32_t>(llama_n_ubatch(context_.get()));
    n_threads_ = params.n_threads;
    fine_slices_ = has_gpu();
    // Without rotary positions there may be a table of learned ones, and reading past its end would stop the process.
    const bool table = llama_model_rope_type(model_->raw()) == LLAMA_ROPE_TYPE_NONE && can_cut;
    position_limit_ = table ? model_->n_ctx_train() : std::numeric_limits<int64_t>::max();
    cells_.emplace(llama_get_memory(context_.get()), n_lanes_, static_cast<int32_t>(per_lane), can_cut);
    texts_.resize(static_cast<size_t>(n_lanes_));

    if (blocks_) {
        for (const llama_token token : {blocks_->begin_id, blocks_->memory_id, blocks_->end_id}) {
            banned_.add(token);
        }
    }
    for (const llama_token token : model_->control_ids()) {
        if (!llama_vocab_is_eog(model_->vocab(), token)) {
            banned_.add(token);
        }
    }
    for (const llama_token token : model_->unused_ids()) {
        banned_.add(token);
    }
}

Session::~Session() = default;

void Session::close() {
    if (gate_.close(closing_)) {
        drop_thought();
        rows_.clear();
        cells_.reset();
        context_.reset();
        model_.reset();
    }
}

PassCounts Session::counts() const {
    std::lock_guard<std::mutex> lock(counts_mutex_);
    return counts_;
}

int64_t Session::cached(int32_t lane) {
    Gate::Entry entry(gate_);
    check_lane(lane);
    return static_cast<int64_t>(texts_[static_cast<size_t>(lane)].size());
}

// ---- checks

void Session::check_lane(int32_t lane) const {
    if (lane < 0 || lane >= n_lanes_) {
        throw Error(ErrorKind::option,
                    "lane " + std::to_string(lane) + " does not exist: the session has " + std::to_string(n_lanes_));
    }
}

void Session::check_tokens(const std::vector<llama_token> & tokens) const {
    for (const llama_token token : tokens) {
        model_->check_token(token);
    }
}

void Session::check_depth(int32_t depth) const {
    const int32_t most = blocks_ ? blocks_->count : 0;
    if (depth < 0 || depth > most) {
        throw Error(ErrorKind::option, "depth is " + std::to_string(depth) + ", but must be in 0.." + std::to_string(most));
    }
}

// ---- prefill, think, extend

void Session::prefill(const std::vector<llama_token> & tokens, int32_t lane, const Progress & progress) {
    Gate::Entry entry(gate_);
    check_lane(lane);
    check_tokens(tokens);
    throw_if_stopped();
    const auto n = static_cast<int64_t>(tokens.size());
    make_room(lane, 1, n, n);
    drop_thought();
    start_work();

    const int32_t keep = cut_text(lane, reusable(lane, tokens));
    OnFailure undo([&] { cut_back(lane, keep); });
    add_text(lane, tokens, keep);
    ThinkOptions options;
    options.progress = progress;
    std::vector<ReadoutState> none;
    evaluate(options, none);
    undo.done();
    texts_[static_cast<size_t>(lane)] = tokens;
    finish_work();
}

std::vector<std::vector<ReadoutState>> Session::think(const std::vector<std::vector<llama_token>> & prompts, int32_t depth,
                                                      int32_t first_lane, const ThinkOptions & options) {
    Gate::Entry entry(gate_);
    check_depth(depth);
    check_lane(first_lane);
    const auto n = static_cast<int32_t>(prompts.size());
    if (n < 1 || n > n_lanes_ - first_lane) {
        throw Error(ErrorKind::option, std::to_string(n) + " prompts for the " + std::to_string(n_lanes_ - first_lane) +
                                           " lanes from lane " + std::to_string(first_lane) + " on");
    }
    const int64_t width = blocks_ ? blocks_->width() : 0;
    const int64_t prefix = blocks_ ? static_cast<int64_t>(blocks_->prefix.size()) : 0;
    const int64_t on_top = depth * width + prefix * (options.all_readouts && depth > 0 ? depth : 1);
    int64_t needed = 0;
    int64_t longest = 0;
    for (const auto & prompt : prompts) {
        if (prompt.empty()) {
            throw Error(ErrorKind::option, "a prompt needs at least one token");
        }
        check_tokens(prompt);
        const auto length = static_cast<int64_t>(prompt.size());
        needed += length + on_top + 1;
        longest = std::max(longest, length + depth * width + prefix + 1);
    }
    throw_if_stopped();
    make_room(first_lane, n, needed, longest);
    drop_thought();
    start_work();

    std::vector<int32_t> keeps;
    OnFailure undo([&] {
        for (size_t i = 0; i < keeps.size(); ++i) {
            cut_back(first_lane + static_cast<int32_t>(i), keeps[i]);
        }
    });
    std::vector<ReadoutState> states;
    states.reserve(static_cast<size_t>(n * std::max(depth, 1)));
    for (int32_t i = 0; i < n; ++i) {
        const std::vector<llama_token> & prompt = prompts[static_cast<size_t>(i)];
        const int32_t lane = first_lane + i;
        int32_t keep = reusable(lane, prompt);
        if (depth == 0 && keep == static_cast<int32_t>(prompt.size()) && (prefix == 0 || options.hidden)) {
            --keep;  // the direct readout is taken at the last visible token
        }
        keep = cut_text(lane, keep);
        keeps.push_back(keep);
        add_text(lane, prompt, keep);
        add_blocks(lane, static_cast<llama_pos>(prompt.size()), 1, depth, options, pass_.size() - 1, states);
        if (!cells_->can_cut()) {
            lane_ends_.push_back(pass_.size());
        }
    }
    evaluate(options, states);
    undo.done();
    for (int32_t i = 0; i < n; ++i) {
        texts_[static_cast<size_t>(first_lane + i)] = prompts[static_cast<size_t>(i)];
    }
    thought_.active = true;
    thought_.first_lane = first_lane;
    thought_.n_lanes = n;
    thought_.depth = depth;
    thought_.cells = work_counts_.slots + work_counts_.prefix;
    thought_.readouts.swap(pending_);
    finish_work();
    return by_lane(std::move(states));
}

std::vector<std::vector<ReadoutState>> Session::extend(int32_t depth, const ThinkOptions & options) {
    Gate::Entry entry(gate_);
    if (!thought_.active) {
        throw Error(ErrorKind::option, "extend() needs a think() before");
    }
    check_depth(depth);
    if (depth <= thought_.depth) {
        throw Error(ErrorKind::option, "depth is " + std::to_string(depth) + ", but " + std::to_string(thought_.depth) +
                                           " blocks have run already");
    }
    throw_if_stopped();
    const int32_t from = thought_.depth + 1;
    const int64_t width = blocks_->width();
    const auto prefix = static_cast<int64_t>(blocks_->prefix.size());
    const int64_t n_read = options.all_readouts ? depth - thought_.depth : 1;
    int64_t longest = 0;
    for (int32_t lane = thought_.first_lane; lane < thought_.first_lane + thought_.n_lanes; ++lane) {
        longest = std::max(longest, static_cast<int64_t>(texts_[static_cast<size_t>(lane)].size()) + depth * width + prefix + 1);
    }
    const int64_t more = thought_.n_lanes * ((depth - thought_.depth) * width + n_read * prefix + 1);
    const int64_t needed = visible_cells() + thought_.cells + more;
    make_room(0, n_lanes_, needed, longest);
    start_work();

    OnFailure undo([&] {
        tap_.disarm();
        for (int32_t lane = thought_.first_lane; lane < thought_.first_lane + thought_.n_lanes; ++lane) {
            // Sequences below hold the earlier readouts and took no part.
            const auto end = static_cast<llama_pos>(texts_[static_cast<size_t>(lane)].size()) + thought_.depth * blocks_->width();
            if (!cells_->cut_from(lane, thought_.depth, end)) {
                texts_[static_cast<size_t>(lane)].clear();
                thought_.active = false;
            }
        }
    });
    std::vector<ReadoutState> states;
    for (int32_t lane = thought_.first_lane; lane < thought_.first_lane + thought_.n_lanes; ++lane) {
        const auto start = static_cast<llama_pos>(texts_[static_cast<size_t>(lane)].size());
        add_blocks(lane, start, from, depth, options, 0, states);
    }
    evaluate(options, states);
    undo.done();
    thought_.depth = depth;
    thought_.cells += work_counts_.slots + work_counts_.prefix;
    std::move(pending_.begin(), pending_.end(), std::back_inserter(thought_.readouts));
    finish_work();
    return by_lane(std::move(states));
}

std::vector<std::vector<ReadoutState>> Session::by_lane(std::vector<ReadoutState> && states) const {
    std::vector<std::vector<ReadoutState>> lanes(static_cast<size_t>(thought_.n_lanes));
    for (ReadoutState & state : states) {
        lanes[static_cast<size_t>(state.lane - thought_.first_lane)].push_back(std::move(state));
    }
    return lanes;
}

const Session::Readout & Session::find_readout(const Target & target) const {
    for (const Readout & readout : thought_.readouts) {
        if (readout.target.lane == target.lane && readout.target.block == target.block) {
            return readout;
        }
    }
    throw Error(ErrorKind::option, "no readout of block " + std::to_string(target.block) + " in lane " + std::to_string(target.lane) +
                                       ": decode what the last think() or extend() returned");
}

}  // namespace rim
