// bind_session.cpp: Python face of the session (session.h). Translates types; decides nothing.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <utility>

#include "bind.h"
#include "cpu.h"
#include "session.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using rim::Blocks;
using rim::Decoded;
using rim::DecodeOptions;
using rim::ModelHandle;
using rim::PassCounts;
using rim::ReadoutState;
using rim::Sampling;
using rim::Session;
using rim::SessionOptions;
using rim::ThinkOptions;
using Tokens = std::vector<llama_token>;
using States = std::vector<std::vector<ReadoutState>>;

unsigned long main_thread = 0;

// Ctrl-C while native code works in the main thread: the pending KeyboardInterrupt, or nothing.
std::exception_ptr pending_signal() {
    if (PyThread_get_thread_ident() != main_thread) {
        return nullptr;
    }
    nb::gil_scoped_acquire gil;
    return PyErr_CheckSignals() == 0 ? nullptr : std::make_exception_ptr(nb::python_error());
}

rim::Progress to_progress(const nb::object & callback) {
    if (callback.is_none()) {
        return {};
    }
    return [&callback](int64_t done, int64_t total) {
        nb::gil_scoped_acquire gil;
        const nb::object answer = callback(done, total);
        return !answer.is(nb::bool_(false));  // None goes on
    };
}

nb::object to_array(const rim::Row & row) {
    if (!row) {
        return nb::none();
    }
    auto * owner = new rim::Row(row);
    const nb::capsule capsule(owner, [](void * p) noexcept { delete static_cast<rim::Row *>(p); });
    return nb::cast(nb::ndarray<nb::numpy, const float, nb::ndim<1>>(row->data(), {row->size()}, capsule));
}

const char * to_text(rim::Finish finish) {
    switch (finish) {
        case rim::Finish::stop: return "stop";
        case rim::Finish::length: return "length";
        case rim::Finish::context: return "context";
        case rim::Finish::cancelled: return "cancelled";
        case rim::Finish::callback: return "callback";
    }
    return "stop";
}

void make_session(Session * self, const ModelHandle & model, std::optional<Blocks> blocks, const SessionOptions & options) {
    auto shared = model.get();
    nb::gil_scoped_release release;
    new (self) Session(std::move(shared), std::move(blocks), options);
}

States think(Session & self, const std::vector<Tokens> & prompts, int32_t depth, int32_t first_lane, bool all_readouts, bool hidden,
             bool logits, nb::object progress) {
    const ThinkOptions options = {all_readouts, hidden, logits, to_progress(progress)};
    nb::gil_scoped_release release;
    return self.think(prompts, depth, first_lane, options);
}

States extend(Session & self, int32_t depth, bool all_readouts, bool hidden, bool logits) {
    const ThinkOptions options = {all_readouts, hidden, logits, {}};
    nb::gil_scoped_release release;
    return self.extend(depth, options);
}

std::vector<Decoded> decode(Session & self, const std::vector<std::pair<int32_t, int32_t>> & targets, const Sampling & sampling,
                            int32_t max_tokens, std::vector<std::string> stop, nb::object on_text) {
    DecodeOptions options;
    options.sampling = sampling;
    options.max_tokens = max_tokens;
    options.stop = std::move(stop);
    if (!on_text.is_none()) {
        options.on_text = [&on_text](size_t index, const std::string & text) {
            nb::gil_scoped_acquire gil;
            const nb::object answer = on_text(index, text);
            return !answer.is(nb::bool_(false));
        };
    }
    std::vector<rim::Target> list;
    for (const auto & [lane, block] : targets) {
        list.push_back({lane, block});
    }
    nb::gil_scoped_release release;
    return self.decode(list, options);
}

std::vector<ReadoutState> advance(Session & self, const std::vector<std::pair<int32_t, int32_t>> & targets, const Tokens & tokens) {
    std::vector<rim::Target> list;
    for (const auto & [lane, block] : targets) {
        list.push_back({lane, block});
    }
    nb::gil_scoped_release release;
    return self.advance(list, tokens);
}

nb::object batch_logits(const ModelHandle & model, const Tokens & tokens, const SessionOptions & options,
                        const std::vector<int32_t> & rows, int32_t pad_outputs) {
    const auto shared = model.get();
    auto * data = new std::vector<float>;
    const nb::capsule owner(data, [](void * p) noexcept { delete static_cast<std::vector<float> *>(p); });
    {
        nb::gil_scoped_release release;
        *data = rim::batch_logits(*shared, tokens, options, rows, pad_outputs);
    }
    const size_t n = rows.size();
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(data->data(), {n, data->size() / n}, owner));
}

void bind_options(nb::module_ & m) {
    nb::class_<SessionOptions>(m, "SessionOptions", "How a session's context is made.")
        .def(
            "__init__",
            [](SessionOptions * self, int32_t n_ctx, int32_t n_batch, int32_t n_ubatch, int32_t n_lanes, int32_t n_threads,
               int32_t n_threads_batch, std::string cache_type, std::string flash_attention, bool offload_kqv) {
                new (self) SessionOptions{n_ctx,           n_batch,   n_ubatch, n_lanes, n_threads, n_threads_batch, std::move(cache_type),
                                          std::move(flash_attention), offload_kqv};
            },
            nb::kw_only(), "n_ctx"_a = 4096, "n_batch"_a = 2048, "n_ubatch"_a = 512, "n_lanes"_a = 1, "n_threads"_a = 0,
            "n_threads_batch"_a = 0, "cache_type"_a = "f16", "flash_attention"_a = "auto", "offload_kqv"_a = true)
        .def_rw("n_ctx", &SessionOptions::n_ctx, "Cells in all: visible text, blocks and answers; rounded up to a multiple of 256.")
        .def_rw("n_batch", &SessionOptions::n_batch, "Most tokens of one llama_decode.")
        .def_rw("n_ubatch", &SessionOptions::n_ubatch, "Most tokens that libllama computes at once.")
        .def_rw("n_lanes", &SessionOptions::n_lanes, "Questions side by side; lanes x blocks is at most 256.")
        .def_rw("n_threads", &SessionOptions::n_threads, "0: physical cores available to the process.")
        .def_rw("n_threads_batch", &SessionOptions::n_threads_batch, "0: as n_threads.")
        .def_rw("cache_type", &SessionOptions::cache_type, "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl.")
        .def_rw("flash_attention", &SessionOptions::flash_attention, "auto, on or off.")
        .def_rw("offload_kqv", &SessionOptions::offload_kqv, "Keep the cache on the GPU, if there is one.");

    nb::class_<Blocks>(m, "Blocks", "The memory-slot layout: `count` blocks of begin, `size` x memory, end; `prefix` opens every readout.")
        .def(
            "__init__",
            [](Blocks * self, llama_token begin_id, llama_token memory_id, llama_token end_id, int32_t size, int32_t count, Tokens prefix) {
                new (self) Blocks{begin_id, memory_id, end_id, size, count, std::move(prefix)};
            },
            nb::kw_only(), "begin_id"_a, "memory_id"_a, "end_id"_a, "size"_a, "count"_a, "prefix"_a = Tokens())
        .def_rw("begin_id", &Blocks::begin_id)
        .def_rw("memory_id", &Blocks::memory_id)
        .def_rw("end_id", &Blocks::end_id)
        .def_rw("size", &Blocks::size, "Memory tokens per block (M).")
        .def_rw("count", &Blocks::count, "Most blocks that the session will run.")
        .def_rw("prefix", &Blocks::prefix, "Tokens of the answer prefix, may be empty.");

    nb::class_<Sampling>(m, "Sampling", "How tokens are chosen.")
        .def(
            "__init__",
            [](Sampling * self, float temperature, int32_t top_k, float top_p, float min_p, uint32_t seed, float repeat_penalty,
               int32_t repeat_last_n, bool ignore_end) {
                new (self) Sampling{temperature, top_k, top_p, min_p, seed, repeat_penalty, repeat_last_n, ignore_end};
            },
            nb::kw_only(), "temperature"_a = 0.0f, "top_k"_a = 40, "top_p"_a = 0.95f, "min_p"_a = 0.05f, "seed"_a = LLAMA_DEFAULT_SEED,
            "repeat_penalty"_a = 1.0f, "repeat_last_n"_a = 64, "ignore_end"_a = false)
        .def_rw("temperature", &Sampling::temperature, "<= 0: the most likely token.")
        .def_rw("top_k", &Sampling::top_k, "<= 0: all tokens.")
        .def_rw("top_p", &Sampling::top_p, "1: off.")
        .def_rw("min_p", &Sampling::min_p, "0: off.")
        .def_rw("seed", &Sampling::seed, "Target i draws with seed + i; 0xFFFFFFFF: a random seed.")
        .def_rw("repeat_penalty", &Sampling::repeat_penalty, "1: off.")
        .def_rw("repeat_last_n", &Sampling::repeat_last_n, "Tokens that the penalty looks back on; -1: all.")
        .def_rw("ignore_end", &Sampling::ignore_end, "An end-of-generation token ends nothing: answers of a given length, to measure.");
}

void bind_results(nb::module_ & m) {
    nb::class_<ReadoutState>(m, "ReadoutState", "What the model would say first after one block.")
        .def_ro("lane", &ReadoutState::lane)
        .def_ro("block", &ReadoutState::block, "1..K; 0: direct, no block run.")
        .def_ro("token", &ReadoutState::token, "Top token; never a memory token.")
        .def_ro("probability", &ReadoutState::probability, "Of the top token, in the softmax over the raw logits.")
        .def_ro("entropy", &ReadoutState::entropy, "Of that softmax, in nats.")
        .def_prop_ro(
            "hidden", [](const ReadoutState & self) { return to_array(self.hidden); },
            nb::sig("def hidden(self) -> numpy.typing.NDArray[numpy.float32] | None"),
            "[n_embd] float32: the state after the final norm at the block's end token (block 0: at the last visible token), if asked for.")
        .def_prop_ro(
            "logits", [](const ReadoutState & self) { return to_array(self.logits); },
            nb::sig("def logits(self) -> numpy.typing.NDArray[numpy.float32] | None"), "[n_vocab] float32, raw, if asked for.");

    nb::class_<PassCounts>(m, "PassCounts", "What the last prefill, think or extend did, in tokens.")
        .def_ro("reused", &PassCounts::reused, "Visible tokens that were in the cache.")
        .def_ro("text", &PassCounts::text, "Visible tokens evaluated.")
        .def_ro("slots", &PassCounts::slots, "Tokens of memory blocks evaluated.")
        .def_ro("prefix", &PassCounts::prefix, "Answer-prefix tokens evaluated.")
        .def_ro("passes", &PassCounts::passes, "llama_decode calls.");

    nb::class_<Decoded>(m, "Decoded", "One answer.")
        .def_ro("lane", &Decoded::lane)
        .def_ro("block", &Decoded::block)
        .def_ro("tokens", &Decoded::tokens, "Without the end-of-generation token.")
        .def_ro("logprobs", &Decoded::logprobs,
                "Of each sampled token, the end-of-generation token included; softmax over the raw logits.")
        .def_ro("seconds", &Decoded::seconds, "From the call of decode to each sampled token, the end-of-generation token included.")
        .def_ro("text", &Decoded::text, "Whole characters (invalid bytes are U+FFFD), cut before a stop string.")
        .def_prop_ro("finish", [](const Decoded & self) { return to_text(self.finish); },
                     "\"stop\", \"length\", \"context\" (no room), \"cancelled\" or \"callback\".");
}

}  // namespace

void bind_session(nb::module_ & m) {
    main_thread = nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
    rim::set_interrupt_poll(pending_signal);
    bind_options(m);
    bind_results(m);

    constexpr auto free_gil = nb::call_guard<nb::gil_scoped_release>();
    nb::class_<Session>(
        m, "Session",
        "One context: visible text in the cache, memory blocks and answers on top of it.\n\n"
        "One call at a time (BusyError); cancel() from any thread. After any failure what was submitted is removed and the session is usable.\n"
        "Raises OptionError, UnsupportedError (blocks on a model that cannot share cells), BackendError; after close() ClosedError.")
        .def("__init__", &make_session, "model"_a, "blocks"_a.none(), "options"_a = SessionOptions(),
             nb::sig("def __init__(self, model: Model, blocks: Blocks | None, options: SessionOptions = ...) -> None"))
        .def_prop_ro("n_ctx", &Session::n_ctx, "Cells of the context, in tokens.")
        .def_prop_ro("n_batch", &Session::n_batch)
        .def_prop_ro("n_lanes", &Session::n_lanes)
        .def_prop_ro("n_threads", &Session::n_threads)
        .def_prop_ro("counts", &Session::counts)
        .def_prop_ro(
            "memory",
            [](const Session & self) {
                nb::dict sizes;
                sizes["cache"] = self.memory().cache;
                sizes["compute"] = self.memory().compute;
                return sizes;
            },
            nb::sig("def memory(self) -> dict[str, int]"), "Bytes of the cache and of libllama's compute buffers (0 if unknown).")
        .def("cached", &Session::cached, "lane"_a = 0, "Visible tokens in the lane's cache.")
        .def(
            "prefill",
            [](Session & self, const Tokens & tokens, int32_t lane, nb::object progress) {
                const rim::Progress callback = to_progress(progress);
                nb::gil_scoped_release release;
                self.prefill(tokens, lane, callback);
            },
            "tokens"_a, "lane"_a = 0, "progress"_a = nb::none(),
            nb::sig("def prefill(self, tokens: collections.abc.Sequence[int], lane: int = 0, "
                    "progress: collections.abc.Callable[[int, int], bool | None] | None = None) -> None"),
            "Make the lane hold exactly `tokens`, evaluating what is new. progress(done, total) in tokens; False raises CancelledError.")
        .def("think", &think, "prompts"_a, "depth"_a, "first_lane"_a = 0, "all_readouts"_a = true, "hidden"_a = false, "logits"_a = false,
             "progress"_a = nb::none(),
             nb::sig("def think(self, prompts: collections.abc.Sequence[collections.abc.Sequence[int]], depth: int, first_lane: int = 0, "
                     "all_readouts: bool = True, hidden: bool = False, logits: bool = False, "
                     "progress: collections.abc.Callable[[int, int], bool | None] | None = None) -> list[list[ReadoutState]]"),
             "Run new text, blocks 1..depth and the answer prefix of every block read in one pass; prompts[i] is the whole visible text "
             "of lane first_lane + i. Returns the readouts of each lane (depth 0: the direct one).\n\n"
             "Raises ContextFullError before any work, CancelledError.")
        .def("extend", &extend, "depth"_a, "all_readouts"_a = true, "hidden"_a = false, "logits"_a = false,
             "After think(): run the blocks up to `depth` on top; returns the new readouts of each lane.")
        .def("decode", &decode, "targets"_a, "sampling"_a, "max_tokens"_a, "stop"_a = std::vector<std::string>(), "on_text"_a = nb::none(),
             nb::sig("def decode(self, targets: collections.abc.Sequence[tuple[int, int]], sampling: Sampling, max_tokens: int, "
                     "stop: collections.abc.Sequence[str] = (), "
                     "on_text: collections.abc.Callable[[int, str], bool | None] | None = None) -> list[Decoded]"),
             "Answer from the readouts (lane, block), all in parallel. on_text(index, text) gets whole characters, nothing that could "
             "begin a stop string; False stops that target. cancel() ends it with what was said so far.")
        .def("advance", &advance, "targets"_a, "tokens"_a,
             nb::sig("def advance(self, targets: collections.abc.Sequence[tuple[int, int]], tokens: collections.abc.Sequence[int]) "
                     "-> list[ReadoutState]"),
             "Give each of the readouts (lane, block) one answer token, all in one pass; returns what the model would say next, with "
             "logits. The readouts then start there, for more tokens or for decode().\n\n"
             "Raises ContextFullError before any work, UnsupportedError for models with one state per sequence.")
        .def("release", &Session::release, free_gil, "Remove blocks; visible text stays.")
        .def("reset", &Session::reset, "lane"_a = nb::none(), free_gil, "Forget visible text, of one lane or all.")
        .def("cancel", &Session::cancel, "Stop the work, from any thread; sticky until clear_cancel().")
        .def("clear_cancel", &Session::clear_cancel)
        .def("close", &Session::close, free_gil, "Stop the work of another thread, wait for it, free the memory.")
        .def_prop_ro("closed", &Session::closed);

    m.def("batch_logits", &batch_logits, "model"_a, "tokens"_a, "options"_a, "rows"_a, "pad_outputs"_a = 0,
          nb::sig("def batch_logits(model: Model, tokens: collections.abc.Sequence[int], options: SessionOptions, "
                  "rows: collections.abc.Sequence[int], pad_outputs: int = 0) -> numpy.typing.NDArray[numpy.float32]"),
          "Plain single-sequence llama_decode of `tokens` in one batch: logits at the positions `rows`, [len(rows), n_vocab] float32.");
    m.def("physical_cores", &rim::physical_cores, "Physical cores available to this process.");
}
