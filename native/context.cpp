// context.cpp: from options to a llama_context.
#include "context.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "abort_guard.h"
#include "cpu.h"
#include "errors.h"
#include "log.h"

namespace rim {

namespace {

constexpr std::pair<const char *, ggml_type> cache_types[] = {
    {"f32", GGML_TYPE_F32},   {"f16", GGML_TYPE_F16},   {"bf16", GGML_TYPE_BF16}, {"q8_0", GGML_TYPE_Q8_0},    {"q5_1", GGML_TYPE_Q5_1},
    {"q5_0", GGML_TYPE_Q5_0}, {"q4_1", GGML_TYPE_Q4_1}, {"q4_0", GGML_TYPE_Q4_0}, {"iq4_nl", GGML_TYPE_IQ4_NL},
};

ggml_type cache_type(const std::string & name) {
    std::string known;
    for (const auto & [text, type] : cache_types) {
        if (name == text) {
            return type;
        }
        known += std::string(known.empty() ? "" : ", ") + text;
    }
    throw Error(ErrorKind::option, "cache type '" + name + "' is unknown: use one of " + known);
}

llama_flash_attn_type flash_attention(const std::string & name) {
    if (name == "auto") {
        return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
    if (name == "on") {
        return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    if (name == "off") {
        return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    throw Error(ErrorKind::option, "flash_attention is '" + name + "', but must be auto, on or off");
}

void check_at_least(const char * name, int32_t value, int32_t least) {
    if (value < least) {
        throw Error(ErrorKind::option,
                    std::string(name) + " is " + std::to_string(value) + ", but must be at least " + std::to_string(least));
    }
}

// Sums the sizes that libllama logs while it makes a context.
class SizeCapture : public LogCapture {
  public:
    void add(int level, const std::string & line) override {
        LogCapture::add(level, line);
        add_size(line, " compute buffer size =", compute_mib);
        add_size(line, " KV buffer size =", cache_mib);
        add_size(line, " RS buffer size =", cache_mib);
    }

    double compute_mib = 0;
    double cache_mib = 0;

  private:
    static void add_size(const std::string & line, const char * key, double & sum) {
        const size_t at = line.find(key);
        if (at != std::string::npos) {
            sum += std::strtod(line.c_str() + at + std::strlen(key), nullptr);
        }
    }
};

constexpr double mib = 1024.0 * 1024.0;

int64_t number(const Model & model, const std::string & key, int64_t otherwise) {
    char text[64];
    const std::string name = model.architecture() + key;
    if (llama_model_meta_val_str(model.raw(), name.c_str(), text, sizeof(text)) <= 0) {
        return otherwise;
    }
    char * end = nullptr;
    const long long value = std::strtoll(text, &end, 10);
    return end != text && *end == '\0' && value > 0 ? value : otherwise;
}

// Keys and values of every layer, for models whose layers are all alike.
uint64_t cache_bytes(const Model & model, const llama_context_params & params) {
    const int64_t n_head = std::max(1, model.n_head());
    const int64_t head = model.n_embd() / n_head;
    const int64_t keys = number(model, ".attention.key_length", head) * model.n_head_kv();
    const int64_t values = number(model, ".attention.value_length", head) * model.n_head_kv();
    const uint64_t row = ggml_row_size(params.type_k, keys) + ggml_row_size(params.type_v, values);
    return row * params.n_ctx * static_cast<uint64_t>(model.n_layer());
}

}  // namespace

llama_context_params context_params(const SessionOptions & options, int32_t n_sequences, int32_t n_outputs) {
    check_at_least("n_ctx", options.n_ctx, 1);
    check_at_least("n_batch", options.n_batch, 1);
    check_at_least("n_ubatch", options.n_ubatch, 1);
    check_at_least("n_threads", options.n_threads, 0);
    check_at_least("n_threads_batch", options.n_threads_batch, 0);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = (static_cast<uint32_t>(options.n_ctx) + 255u) / 256u * 256u;  // as libllama rounds it
    // libllama wants a row of output and a place in the batch for every sequence.
    params.n_batch = static_cast<uint32_t>(std::max({options.n_batch, n_sequences, n_outputs}));
    params.n_ubatch = static_cast<uint32_t>(std::max(options.n_ubatch, n_sequences));
    params.n_ctx = std::max(params.n_ctx, (static_cast<uint32_t>(n_sequences) + 255u) / 256u * 256u);
    params.n_seq_max = static_cast<uint32_t>(n_sequences);
    params.n_outputs_max = static_cast<uint32_t>(std::max(n_outputs, n_sequences));
    params.n_threads = options.n_threads > 0 ? options.n_threads : physical_cores();
    params.n_threads_batch = options.n_threads_batch > 0 ? options.n_threads_batch : params.n_threads;
    params.flash_attn_type = flash_attention(options.flash_attention);
    params.type_k = cache_type(options.cache_type);
    params.type_v = params.type_k;
    params.offload_kqv = options.offload_kqv;
    params.no_perf = true;
    params.swa_full = true;
    params.kv_unified = true;
    if (ggml_is_quantized(params.type_v) && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        throw Error(ErrorKind::option, "cache type '" + options.cache_type + "' needs flash attention: leave flash_attention on "
                                       "auto or use cache type f16");
    }
    return params;
}

llama_context_ptr make_context(const Model & model, const llama_context_params & params, MemoryUse * memory) {
    if (model.vocab_only()) {
        throw Error(ErrorKind::unsupported, model.path() + " was loaded without weights (vocab_only): load it again to run it");
    }
    if (model.has_encoder() || !model.has_decoder() || llama_model_is_diffusion(model.raw())) {
        throw Error(ErrorKind::unsupported, model.path() + " (" + model.architecture() +
                                                ") does not write text from left to right: use a decoder model");
    }
    SizeCapture log;
    llama_context_ptr context;
    std::string reason;
    try {
        const AbortGuard guard;
        context.reset(llama_init_from_model(model.raw(), params));
    } catch (const std::exception & error) {
        reason = error.what();
    }
    if (!context) {
        reason = reason.empty() ? log.reason() : reason;
        throw Error(ErrorKind::backend, "libllama cannot make a context of " + std::to_string(params.n_ctx) + " tokens" +
                                            (reason.empty() ? "" : " (" + reason + ")") +
                                            ": try a smaller n_ctx or another cache_type");
    }
    if (memory) {
        // libllama rounds what it logs to 0.01 MiB; the shape of the model gives the exact number where it applies.
        const uint64_t exact = cache_bytes(model, params);
        const bool agree = std::abs(static_cast<double>(exact) / mib - log.cache_mib) < 0.02;
        memory->cache = agree ? exact : static_cast<uint64_t>(log.cache_mib * mib);
        memory->compute = static_cast<uint64_t>(log.compute_mib * mib);
    }
    return context;
}

std::vector<float> batch_logits(const Model & model, const std::vector<llama_token> & tokens, const SessionOptions & options,
                                const std::vector<int32_t> & rows, int32_t pad_outputs) {
    if (tokens.empty() || rows.empty()) {
        throw Error(ErrorKind::option, "batch_logits needs at least one token and one row");
    }
    for (const llama_token token : tokens) {
        model.check_token(token);
    }
    const int32_t n = static_cast<int32_t>(tokens.size());
    check_at_least("pad_outputs", pad_outputs, 0);
    std::vector<int8_t> output(tokens.size(), 0);
    for (const int32_t row : rows) {
        if (row < 0 || row >= n) {
            throw Error(ErrorKind::option, "row " + std::to_string(row) + " is outside of the " + std::to_string(n) + " tokens");
        }
        output[static_cast<size_t>(row)] = 1;
    }
    for (size_t i = tokens.size(); i-- > 0 && pad_outputs > 0;) {
        if (output[i] == 0) {
            output[i] = 1;
            --pad_outputs;
        }
    }
    const int32_t n_outputs = static_cast<int32_t>(std::count(output.begin(), output.end(), 1));
    llama_context_params params = context_params(options, 1, n_outputs);
    if (n > static_cast<int32_t>(params.n_ctx)) {
        throw context_full("the " + std::to_string(n) + " tokens do not fit the context of " + std::to_string(params.n_ctx), n,
                           params.n_ctx);
    }
    params.n_batch = std::max(params.n_batch, static_cast<uint32_t>(n));
    const llama_context_ptr context = make_context(model, params, nullptr);

    std::vector<llama_token> copy = tokens;  // llama_batch wants them writable
    llama_batch batch = llama_batch_get_one(copy.data(), n);
    batch.logits = output.data();
    LogCapture log;
    const AbortGuard guard;
    const int32_t status = llama_decode(context.get(), batch);
    if (status != 0) {
        throw Error(ErrorKind::backend, "libllama failed to compute " + std::to_string(n) + " tokens (status " +
                                            std::to_string(status) + ") " + log.reason());
    }
    std::vector<float> result;
    result.reserve(rows.size() * static_cast<size_t>(model.n_vocab()));
    for (const int32_t row : rows) {
        const float * logits = llama_get_logits_ith(context.get(), row);
        result.insert(result.end(), logits, logits + model.n_vocab());
    }
    return result;
}

}  // namespace rim
