// model.h: weights and vocabulary of one GGUF file.
//
// A Model is immutable once loaded, may be used from any number of threads and sessions at the same time, and is always held
// by shared_ptr: its memory is freed when the last holder (a Python Model, a Session) lets go.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <llama-cpp.h>
#include <llama.h>

namespace rim {

struct ModelOptions {
    int n_gpu_layers = -1;    // layers on the GPU; negative: all that libllama can put there
    bool use_mmap = true;     // map the weights instead of reading them into memory
    bool vocab_only = false;  // no weights: tokenizer and metadata only

    // Called with 0..1 while loading, at least once with 1. Returning false aborts (Error cancelled); what it throws aborts and
    // is thrown again by load().
    std::function<bool(float)> progress;
};

class Model {
  public:
    // Check the file (gguf_file.h), then let libllama load it. Throws Error model_file, cancelled.
    static std::shared_ptr<const Model> load(const std::string & path, const ModelOptions & options);

    Model(const Model &) = delete;
    Model & operator=(const Model &) = delete;

    // ---- what libllama needs. The pointers live as long as the Model.
    llama_model * raw() const noexcept { return model_.get(); }
    const llama_vocab * vocab() const noexcept { return vocab_; }

    // ---- facts, read once
    const std::string & path() const noexcept { return path_; }
    const std::string & architecture() const noexcept { return architecture_; }  // "llama", "gpt2", ...
    std::string description() const;                                             // "llama 1B Q4_0"
    int32_t n_vocab() const noexcept { return n_vocab_; }
    int32_t n_embd() const noexcept { return n_embd_; }
    int32_t n_layer() const noexcept { return llama_model_n_layer(raw()); }
    int32_t n_head() const noexcept { return llama_model_n_head(raw()); }
    int32_t n_head_kv() const noexcept { return llama_model_n_head_kv(raw()); }
    int32_t n_ctx_train() const noexcept { return llama_model_n_ctx_train(raw()); }
    int32_t n_swa() const noexcept { return llama_model_n_swa(raw()); }
    uint64_t n_params() const noexcept { return llama_model_n_params(raw()); }
    uint64_t size_bytes() const noexcept { return llama_model_size(raw()); }  // of all tensors
    bool vocab_only() const noexcept { return vocab_only_; }
    bool has_tokenizer() const noexcept;
    bool has_encoder() const noexcept { return llama_model_has_encoder(raw()); }
    bool has_decoder() const noexcept { return llama_model_has_decoder(raw()); }
    const std::string * chat_template() const noexcept { return has_template_ ? &template_ : nullptr; }

    // Whether several sequences can share the cells of one pass, which the coupled pass over all readouts needs; if not, why.
    bool coupled() const noexcept { return coupled_reason_.empty(); }
    const std::string & coupled_reason() const noexcept { return coupled_reason_; }

    // ---- vocabulary. Token ids outside 0..n_vocab-1 are an Error option; a model without tokenizer makes text an Error unsupported.
    llama_token bos_id() const noexcept { return llama_vocab_bos(vocab_); }  // -1 where absent, like the next two
    llama_token eos_id() const noexcept { return llama_vocab_eos(vocab_); }
    llama_token eot_id() const noexcept { return llama_vocab_eot(vocab_); }
    bool add_bos() const noexcept { return llama_vocab_get_add_bos(vocab_); }
    bool add_eos() const noexcept { return llama_vocab_get_add_eos(vocab_); }
    const char * vocab_type() const noexcept;  // "bpe", "spm", "wpm", "ugm", "rwkv", "plamo2", "none"

    // Every token with the CONTROL attribute, ascending; never part of visible text.
    const std::vector<llama_token> & control_ids() const noexcept { return control_ids_; }
    // Every token with the UNUSED attribute, ascending: rows of the embedding that stand for no text.
    const std::vector<llama_token> & unused_ids() const noexcept { return unused_ids_; }
    bool is_eog(llama_token token) const;                 // ends a generation (EOS, EOT, EOM, ...)
    std::string token_text(llama_token token) const;      // the vocabulary entry as written
    std::string token_piece(llama_token token) const;     // the bytes that it stands for; "" for control tokens
    std::string detokenize(const llama_token * tokens, size_t n_tokens) const;  // bytes; control tokens give nothing

    // Never adds BOS or EOS. parse_special: the texts of control tokens become those tokens. Any bytes, any length up to 2^31-1.
    // A vocabulary of type spm puts a space before the text, as libllama does.
    std::vector<llama_token> tokenize(std::string_view text, bool parse_special) const;

    void check_token(llama_token token) const;  // throws Error option

  private:
    Model() = default;
    void read_facts();
    void tokenize_piece(std::string_view text, bool parse_special, std::vector<llama_token> & tokens) const;
    void need_tokenizer() const;  // throws Error unsupported

    std::string path_;
    std::string architecture_;
    std::string template_;
    std::string coupled_reason_;
    std::vector<llama_token> control_ids_;
    std::vector<llama_token> unused_ids_;
    const llama_vocab * vocab_ = nullptr;
    int32_t n_vocab_ = 0;
    int32_t n_embd_ = 0;
    bool has_template_ = false;
    bool vocab_only_ = false;
    llama_model_ptr model_;
};

// Names of the devices that libllama can use ("CPU", "Metal", ...).
std::vector<std::string> device_names();

}  // namespace rim
