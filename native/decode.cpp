// decode.cpp: answers from one or many readouts, one llama_decode per step for all of them.
#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "errors.h"
#include "session.h"
#include "text_stream.h"

namespace rim {

namespace {

void check_options(const DecodeOptions & options) {
    check_sampling(options.sampling);
    if (options.max_tokens < 0) {
        throw Error(ErrorKind::option, "max_tokens is " + std::to_string(options.max_tokens) + ", but must be at least 0");
    }
    for (const std::string & stop : options.stop) {
        if (stop.empty()) {
            throw Error(ErrorKind::option, "a stop string is empty: leave it out");
        }
    }
}

// Seed of answer `index`; never the value that libllama takes for "random".
uint32_t seed_of(uint32_t base, size_t index) {
    const uint32_t seed = base + static_cast<uint32_t>(index);
    return seed == LLAMA_DEFAULT_SEED ? seed - 1 : seed;
}

// One answer being written.
struct Answer {
    size_t index;
    llama_seq_id sequence;
    llama_pos start;  // position of its first token
    llama_pos next;
    const float * logits;  // of the next token
    Sampler sampler;
    TextStream stream;
    Decoded * out;
    bool open = true;
};

}  // namespace

std::vector<Decoded> Session::decode(const std::vector<Target> & targets, const DecodeOptions & options) {
    Gate::Entry entry(gate_);
    const auto began = std::chrono::steady_clock::now();
    check_options(options);
    if (!thought_.active) {
        throw Error(ErrorKind::option, "decode() needs the readouts of a think() before");
    }
    const bool random = options.sampling.seed == LLAMA_DEFAULT_SEED;
    const uint32_t base = random ? std::random_device{}() : options.sampling.seed;
    std::vector<Decoded> results(targets.size());
    std::vector<Answer> answers;
    answers.reserve(targets.size());
    for (size_t i = 0; i < targets.size(); ++i) {
        const Readout & readout = find_readout(targets[i]);
        for (size_t j = 0; j < i; ++j) {
            if (targets[j].lane == targets[i].lane && targets[j].block == targets[i].block) {
                throw Error(ErrorKind::option, "block " + std::to_string(targets[i].block) + " of lane " +
                                                   std::to_string(targets[i].lane) + " is asked for twice");
            }
        }
        results[i].lane = targets[i].lane;
        results[i].block = targets[i].block;
        const std::vector<llama_token> & text = texts_[static_cast<size_t>(targets[i].lane)];
        answers.push_back({i, readout.sequence, readout.next, readout.next, readout.logits->data(),
                           Sampler(options.sampling, seed_of(base, i), n_ctx_, banned_, n_vocab_, text), TextStream(options.stop),
                           &results[i]});
    }

    // Whatever happens, answers leave no cells behind.
    struct Cleaner {
        ~Cleaner() {
            for (const Answer & answer : answers) {
                session.remove_answer(answer.out->lane, answer.sequence, answer.start, answer.next);
            }
        }
        Session & session;
        const std::vector<Answer> & answers;
    } cleaner{*this, answers};

    if (!cells_->can_cut()) {
        for (Answer & answer : answers) {
            answer.sequence = cells_->open_work(answer.out->lane);
        }
    }

    const auto give = [&](const Answer & answer, const std::string & text) {
        return text.empty() || !options.on_text || options.on_text(answer.index, text);
    };
    const auto finish = [&](Answer & answer, Finish how) {
        answer.open = false;
        answer.out->finish = how;
        if (how != Finish::callback) {
            give(answer, answer.stream.finish());
        }
        answer.out->text = answer.stream.text();
    };
    const auto finish_all = [&](Finish how) {
        for (Answer & answer : answers) {
            if (answer.open) {
                finish(answer, how);
            }
        }
    };
    const auto step = [&](Answer & answer, const RowStats & stats) {  // the next token of an answer
        const llama_token token = answer.sampler.sample(answer.logits, stats, scratch_);
        answer.out->logprobs.push_back(stats.log_probability(answer.logits[token]));
        answer.out->seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
        if (!options.sampling.ignore_end && llama_vocab_is_eog(model_->vocab(), token)) {
            finish(answer, Finish::stop);
            return;
        }
        answer.out->tokens.push_back(token);
        const std::string text = answer.stream.push(model_->token_piece(token));
        if (!give(answer, text)) {
            finish(answer, Finish::callback);
        } else if (answer.stream.stopped()) {
            finish(answer, Finish::stop);
        } else if (static_cast<int32_t>(answer.out->tokens.size()) >= options.max_tokens) {
            finish(answer, Finish::length);
        }
    };

    if (options.max_tokens == 0) {
        finish_all(Finish::length);
    }
    int64_t used = visible_cells() + thought_.cells;
    std::vector<RowStats> stats(answers.size());
    std::vector<size_t> open;
    while (true) {
        open.clear();
        for (const Answer & answer : answers) {
            if (answer.open) {
                open.push_back(answer.index);
            }
        }
        side_by_side(static_cast<int64_t>(open.size()), [&](int64_t i) {
            const size_t index = open[static_cast<size_t>(i)];
            stats[index] = row_stats(answers[index].logits, n_vocab_, false);
        });
        pass_.clear();
        bool full = false;
        for (Answer & answer : answers) {
            if (!answer.open) {
                continue;
            }
            if (stop_requested()) {
                finish(answer, Finish::cancelled);
                continue;
            }
            step(answer, stats[answer.index]);
            if (answer.open) {
                pass_.add(answer.out->tokens.back(), answer.next, answer.sequence, 1, true);
                full = full || answer.next >= position_limit_;
            }
        }
        if (pass_.size() == 0) {
            return results;
        }
        used += static_cast<int64_t>(pass_.size());
        if (full || used > n_ctx_) {
            finish_all(Finish::context);
            return results;
        }
        try {
            for (Answer & answer : answers) {
                answer.next += answer.open ? 1 : 0;
            }
            submit(0, pass_.size());
        } catch (const Error & error) {
            if (error.kind != ErrorKind::cancelled) {
                throw;
            }
            finish_all(Finish::cancelled);
            return results;
        }
        size_t row = 0;
        for (Answer & answer : answers) {
            if (answer.open) {
                answer.logits = logits_of(row++);
            }
        }
    }
}

// Removes the cells of an answer that ran from position `start` to before `next`.
void Session::remove_answer(int32_t lane, llama_seq_id sequence, llama_pos start, llama_pos next) {
    if (!cells_->can_cut()) {
        cells_->close_work(lane);
    } else if (next > start && !cells_->cut_sequence(sequence, start)) {
        forget(lane);
        thought_.active = false;
    }
}

}  // namespace rim
