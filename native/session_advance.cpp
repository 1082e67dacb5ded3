// session_advance.cpp: answers whose tokens are given, to see what the model would have said at each of them.
#include <algorithm>
#include <utility>

#include "errors.h"
#include "session.h"

namespace rim {

std::vector<ReadoutState> Session::advance(const std::vector<Target> & targets, const std::vector<llama_token> & tokens) {
    Gate::Entry entry(gate_);
    if (!thought_.active) {
        throw Error(ErrorKind::option, "advance() needs the readouts of a think() before");
    }
    if (!cells_->can_cut()) {
        throw Error(ErrorKind::unsupported, model_->path() + " keeps one state per sequence, which given tokens would overwrite: "
                                                             "use batch_logits for its answers");
    }
    if (targets.empty() || targets.size() != tokens.size()) {
        throw Error(ErrorKind::option, std::to_string(tokens.size()) + " tokens for " + std::to_string(targets.size()) +
                                           " readouts: give one for each");
    }
    check_tokens(tokens);
    throw_if_stopped();
    std::vector<Readout *> readouts;
    int64_t longest = 0;
    for (const Target & target : targets) {
        const Readout * found = &find_readout(target);
        Readout * readout = &thought_.readouts[static_cast<size_t>(found - thought_.readouts.data())];
        if (std::find(readouts.begin(), readouts.end(), readout) != readouts.end()) {
            throw Error(ErrorKind::option, "block " + std::to_string(target.block) + " of lane " + std::to_string(target.lane) +
                                               " is given two tokens at once");
        }
        readouts.push_back(readout);
        longest = std::max<int64_t>(longest, readout->next + 1);
    }
    make_room(0, n_lanes_, visible_cells() + thought_.cells + static_cast<int64_t>(targets.size()), longest);

    pass_.clear();
    for (size_t i = 0; i < targets.size(); ++i) {
        pass_.add(tokens[i], readouts[i]->next, readouts[i]->sequence, 1, true);
    }
    try {
        submit(0, pass_.size());
        std::vector<ReadoutState> states(targets.size());
        std::vector<Logits> logits;
        for (size_t i = 0; i < targets.size(); ++i) {
            states[i].lane = targets[i].lane;
            states[i].block = targets[i].block;
            logits.push_back({logits_of(i), &states[i]});
        }
        const std::vector<Row> rows = read_rows(logits);
        for (size_t i = 0; i < targets.size(); ++i) {
            ++readouts[i]->next;
            readouts[i]->logits = states[i].logits = rows[i];
        }
        thought_.cells += static_cast<int64_t>(targets.size());
        return states;
    } catch (...) {
        for (size_t i = 0; i < targets.size(); ++i) {
            remove_answer(targets[i].lane, readouts[i]->sequence, readouts[i]->next, readouts[i]->next + 1);
        }
        throw;
    }
}

}  // namespace rim
