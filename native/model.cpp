#include "model.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <mutex>
#include <utility>

#include "abort_guard.h"
#include "big_stack.h"
#include "errors.h"
#include "gguf_check.h"
#include "gguf_file.h"
#include "kernels/buffer_type.h"
#include "kernels/cache_memory.h"
#include "log.h"
#include "logits_place.h"
#include "text.h"

namespace rim {
namespace {

struct Progress {
    explicit Progress(const ModelOptions & options_) : options(options_) {}

    const ModelOptions & options;
    bool cancelled = false;
    float last = 0;
    std::exception_ptr failure;

    bool report(float fraction) noexcept {
        last = fraction;
        if (options.progress && !cancelled && !failure) {
            try {
                cancelled = !options.progress(fraction);
            } catch (...) {
                failure = std::current_exception();
            }
        }
        return !cancelled && !failure;
    }

    // Throws what stopped the loading, if anything did.
    void check(const std::string & path) const {
        if (failure) {
            std::rethrow_exception(failure);
        }
        if (cancelled) {
            throw Error(ErrorKind::cancelled, path + ": loading was cancelled");
        }
    }
};

void init_backend() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_backend_init();
        kernels::install();
        kernels::clear_by_giving_back();
        LogitsPlace::enable();
    });
}

// What to say of a file that libllama refuses with this error line.
std::string refusal(const GgufFile & file, const std::string & log_line) {
    if (log_line.compare(0, 27, "unknown model architecture:") == 0) {
        return "its architecture " + quoted(*file.text("general.architecture")) +
               " is unknown to libllama: use another model, or a newer RiM Edge";
    }
    return "libllama cannot load it: " + (log_line.empty() ? "it gives no reason" : one_line(log_line)) +
           " (the file is damaged or needs another version: download or convert it again)";
}

// Long texts reach libllama in pieces, so that the recursion of its regular expressions stays bounded (big_stack.h).
constexpr size_t kPlainStackBytes = size_t(4) << 10;
constexpr size_t kPieceBytes = size_t(128) << 10;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Length of the first piece of a text: before a space between two words, where every pre-tokenizer cuts too. Where a text has none in
// a whole piece it is cut anyway, between two characters.
size_t piece_length(std::string_view text) {
    if (text.size() <= kPieceBytes) {
        return text.size();
    }
    for (size_t at = kPieceBytes; at > kPieceBytes / 2; --at) {
        if (text[at] == ' ' && is_letter(text[at - 1]) && at + 1 < text.size() && is_letter(text[at + 1])) {
            return at;
        }
    }
    size_t at = kPieceBytes;
    while (at > kPieceBytes - 4 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) {
        --at;
    }
    return at;
}

std::string why_not_coupled(const llama_model * model, const std::string & architecture) {
    if (!llama_model_has_decoder(model) || llama_model_has_encoder(model)) {
        return "the model has an encoder (" + architecture + ")";
    }
    if (llama_model_is_recurrent(model)) {
        return "the model is recurrent (" + architecture + "): its state cannot be shared by several readouts";
    }
    if (llama_model_is_hybrid(model)) {
        return "the model is partly recurrent (" + architecture + "): its state cannot be shared by several readouts";
    }
    if (llama_model_is_diffusion(model)) {
        return "the model is a diffusion model (" + architecture + ")";
    }
    // caches of sparse attention, which take no cell for several sequences
    for (const char * name : {"deepseek32", "deepseek4", "glm-dsa", "glm5-next", "minimax-m3", "dots3note", "hy-v4"}) {
        if (architecture == name) {
            return "libllama's cache for the architecture " + architecture + " cannot share cells between readouts";
        }
    }
    return "";
}

}  // namespace

std::shared_ptr<const Model> Model::load(const std::string & path, const ModelOptions & options) {
    init_backend();
    install_log();
    const GgufFile file(path);
    check_model(file, options.vocab_only);

    Progress progress(options);
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = options.n_gpu_layers;
    params.load_mode = options.use_mmap && llama_supports_mmap() ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    params.vocab_only = options.vocab_only;
    params.progress_callback_user_data = &progress;
    params.progress_callback = [](float fraction, void * data) { return static_cast<Progress *>(data)->report(fraction); };

    std::shared_ptr<Model> model(new Model());
    {
        const LogCapture log;
        const AbortGuard guard;
        std::string reason;
        try {
            model->model_.reset(llama_model_load_from_file(path.c_str(), params));
        } catch (const std::exception & error) {  // an assertion outside the loader's own try
            reason = error.what();
        }
        progress.check(path);
        if (!model->model_) {
            file.fail(refusal(file, reason.empty() ? log.reason() : reason));
        }
    }
    model->path_ = path;
    model->architecture_ = std::string(*file.text("general.architecture"));
    model->vocab_only_ = options.vocab_only;
    if (const auto chat = file.text("tokenizer.chat_template")) {
        model->template_ = std::string(*chat);
        model->has_template_ = true;
    }
    try {
        const AbortGuard guard;
        model->read_facts();
    } catch (const AssertionFailed & error) {
        file.fail(refusal(file, error.what()));
    }
    if (progress.last < 1) {
        progress.report(1);
        progress.check(path);
    }
    return model;
}

void Model::read_facts() {
    vocab_ = llama_model_get_vocab(raw());
    n_vocab_ = llama_vocab_n_tokens(vocab_);
    n_embd_ = vocab_only_ ? 0 : llama_model_n_embd(raw());
    coupled_reason_ = why_not_coupled(raw(), architecture_);
    if (has_tokenizer()) {
        for (llama_token token = 0; token < n_vocab_; ++token) {
            if (llama_vocab_is_control(vocab_, token)) {
                control_ids_.push_back(token);
            } else if ((llama_vocab_get_attr(vocab_, token) & LLAMA_TOKEN_ATTR_UNUSED) != 0) {
                unused_ids_.push_back(token);
            }
        }
    }
}

std::string Model::description() const {
    char text[256] = "";
    llama_model_desc(raw(), text, sizeof text);
    return text;
}

bool Model::has_tokenizer() const noexcept { return llama_vocab_type(vocab_) != LLAMA_VOCAB_TYPE_NONE; }

const char * Model::vocab_type() const noexcept {
    switch (llama_vocab_type(vocab_)) {
        case LLAMA_VOCAB_TYPE_SPM: return "spm";
        case LLAMA_VOCAB_TYPE_BPE: return "bpe";
        case LLAMA_VOCAB_TYPE_WPM: return "wpm";
        case LLAMA_VOCAB_TYPE_UGM: return "ugm";
        case LLAMA_VOCAB_TYPE_RWKV: return "rwkv";
        case LLAMA_VOCAB_TYPE_PLAMO2: return "plamo2";
        case LLAMA_VOCAB_TYPE_TEST: return "test";
        case LLAMA_VOCAB_TYPE_NONE: break;
    }
    return "none";
}

void Model::check_token(llama_token token) const {
    if (token < 0 || token >= n_vocab_) {
        throw Error(ErrorKind::option, "token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(n_vocab_) + " tokens");
    }
}

void Model::need_tokenizer() const {
    if (!has_tokenizer()) {
        throw Error(ErrorKind::unsupported, path_ + ": the model has no tokenizer, so it cannot read or write text");
    }
}

bool Model::is_eog(llama_token token) const {
    check_token(token);
    return has_tokenizer() && llama_vocab_is_eog(vocab_, token);
}

std::string Model::token_text(llama_token token) const {
    check_token(token);
    need_tokenizer();
    return llama_vocab_get_text(vocab_, token);
}

std::string Model::token_piece(llama_token token) const {
    return detokenize(&token, 1);
}

std::string Model::detokenize(const llama_token * tokens, size_t n_tokens) const {
    need_tokenizer();
    std::string text;
    std::string piece(64, '\0');
    for (size_t i = 0; i < n_tokens; ++i) {
        check_token(tokens[i]);
        const auto convert = [&] {
            return llama_token_to_piece(vocab_, tokens[i], piece.data(), static_cast<int32_t>(piece.size()), 0, false);
        };
        int32_t length = convert();
        if (length < 0) {
            piece.resize(static_cast<size_t>(-length));
            length = convert();
        }
        text.append(piece, 0, static_cast<size_t>(std::max(length, 0)));
    }
    return text;
}

// Ids of one piece of text, appended to `tokens`.
void Model::tokenize_piece(std::string_view text, bool parse_special, std::vector<llama_token> & tokens) const {
    const size_t start = tokens.size();
    tokens.resize(start + text.size() + 8);
    const auto convert = [&] {
        return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens.data() + start,
                              static_cast<int32_t>(tokens.size() - start), false, parse_special);
    };
    int32_t count = convert();
    if (count < 0 && count != std::numeric_limits<int32_t>::min()) {
        tokens.resize(start + static_cast<size_t>(-count));
        count = convert();
    }
    if (count < 0) {
        throw Error(ErrorKind::option, "the text has too many tokens: shorten it");
    }
    tokens.resize(start + static_cast<size_t>(count));
}

std::vector<llama_token> Model::tokenize(std::string_view text, bool parse_special) const {
    need_tokenizer();
    if (text.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        throw Error(ErrorKind::option, "the text is longer than 2 GiB: shorten it");
    }
    std::vector<llama_token> tokens;
    const auto work = [&] {
        const AbortGuard guard;
        const bool is_bpe = llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_BPE;
        for (std::string_view rest = text; !rest.empty();) {
            const size_t length = is_bpe ? piece_length(rest) : rest.size();
            tokenize_piece(rest.substr(0, length), parse_special, tokens);
            rest.remove_prefix(length);
        }
    };
    try {
        if (text.size() <= kPlainStackBytes) {
            work();
        } else {
            run_on_big_stack(work);
        }
    } catch (const Error &) {
        throw;
    } catch (const std::exception & error) {  // e.g. a vocabulary without the bytes that the text needs
        throw Error(ErrorKind::backend, std::string("the tokenizer of the model cannot read this text: ") + error.what());
    }
    return tokens;
}

std::vector<std::string> device_names() {
    init_backend();
    std::vector<std::string> names;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        names.emplace_back(ggml_backend_dev_name(ggml_backend_dev_get(i)));
    }
    return names;
}

}  // namespace rim
