#include "gguf_check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <limits>

#include "text.h"

namespace rim {
namespace {

constexpr int64_t kMaxLayers = 512;       // LLAMA_MAX_LAYERS
constexpr int64_t kMaxExperts = 1024;     // LLAMA_MAX_EXPERTS
constexpr int64_t kMaxWidth = 1 << 20;    // of an embedding, a head, a feed-forward layer: far above any model
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr const char * kConvert = ": convert the model again";

// Metadata of one architecture, with checks that name the key.
class Checker {
  public:
    Checker(const GgufFile & file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

    std::string key(const std::string & name) const { return prefix_ + name; }

    [[noreturn]] void bad(const std::string & key, const std::string & value, const std::string & expected) const {
        file_.fail(key + " is " + value + ", expected " + expected + kConvert);
    }

    // Every value of an integer key, be it a scalar or an array (one value per layer); empty where absent or of another type.
    std::vector<int64_t> integers(const std::string & name) const {
        std::vector<int64_t> numbers;
        const GgufValue * value = file_.find(key(name));
        if (!value) {
            return numbers;
        }
        if (!value->is_array) {
            if (auto number = file_.integer(key(name))) {
                numbers.push_back(*number);
            }
            return numbers;
        }
        if (value->type == GGUF_TYPE_UINT32 || value->type == GGUF_TYPE_INT32) {
            for (uint64_t i = 0; i < value->count; ++i) {
                uint32_t number;
                std::copy_n(file_.data(*value) + 4 * i, 4, reinterpret_cast<uint8_t *>(&number));
                numbers.push_back(value->type == GGUF_TYPE_INT32 ? static_cast<int32_t>(number) : static_cast<int64_t>(number));
            }
        }
        return numbers;
    }

    // Check the range of every value; returns the largest, `absent` where there is none.
    int64_t range(const std::string & name, int64_t low, int64_t high, int64_t absent) const {
        int64_t largest = absent;
        bool first = true;
        for (const int64_t number : integers(name)) {
            if (number < low || number > high) {
                bad(key(name), std::to_string(number), std::to_string(low) + " to " + std::to_string(high));
            }
            largest = first ? number : std::max(largest, number);
            first = false;
        }
        return largest;
    }

    void real(const std::string & name, double low, double high) const {
        const auto number = file_.real(key(name));
        if (number && !(*number >= low && *number <= high)) {  // NaN fails too
            char expected[64];
            std::snprintf(expected, sizeof expected, "%g to %g", low, high);
            bad(key(name), std::to_string(*number), expected);
        }
    }

    const GgufFile & file() const { return file_; }

  private:
    const GgufFile & file_;
    std::string prefix_;
};

void check_kind(const GgufFile & file) {
    const auto type = file.text("general.type");
    if (type == "adapter") {
        file.fail("is a LoRA adapter, not a model: merge it into its base model first");
    }
    if (type == "mmproj" || file.text("general.architecture") == "clip") {
        file.fail("is the vision part (mmproj) of a model: give the file of the language model");
    }
    if (type == "imatrix" || file.text("general.architecture") == "imatrix") {
        file.fail("is an importance matrix for quantization, not a model");
    }
}

void check_shape(const Checker & check, bool has_attention) {
    const int64_t layers = check.range("block_count", 1, kMaxLayers, 0);
    check.range("context_length", 1, kMaxCount, 0);
    const int64_t width = check.range("embedding_length", 1, kMaxWidth, 0);
    check.range("embedding_length_out", 0, kMaxWidth, 0);
    check.range("feed_forward_length", 0, kMaxWidth, 0);
    check.range("expert_feed_forward_length", 0, kMaxWidth, 0);
    check.range("vocab_size", 0, kMaxCount, 0);
    if (layers > 0) {
        check.range("nextn_predict_layers", 0, layers, 0);
        check.range("leading_dense_block_count", 0, layers, 0);
    }

    const std::vector<int64_t> heads = check.integers("attention.head_count");
    const std::vector<int64_t> heads_kv = check.integers("attention.head_count_kv");
    const int64_t most = width > 0 ? width : kMaxWidth;
    check.range("attention.head_count", has_attention && heads.size() == 1 ? 1 : 0, most, 0);
    check.range("attention.head_count_kv", has_attention && heads_kv.size() == 1 ? 1 : 0, most, 0);
    if (heads.size() == 1 && heads_kv.size() == 1 && heads_kv[0] > 0 && heads[0] % heads_kv[0] != 0) {
        check.bad(check.key("attention.head_count_kv"), std::to_string(heads_kv[0]), "a divisor of " + std::to_string(heads[0]) + " heads");
    }
    for (const char * name : {"attention.key_length", "attention.value_length", "attention.key_length_swa", "attention.value_length_swa",
                              "attention.key_length_mla", "attention.value_length_mla"}) {
        check.range(name, 1, 1 << 16, 0);
    }
    check.range("attention.sliding_window", 0, kMaxCount, 0);

    const int64_t head = check.range("attention.key_length", 1, 1 << 16, heads.size() == 1 && heads[0] > 0 ? width / heads[0] : 0);
    const int64_t rotated = check.range("rope.dimension_count", 0, kMaxWidth, 0);
    if (head > 0 && (rotated > head || rotated % 2 != 0)) {
        check.bad(check.key("rope.dimension_count"), std::to_string(rotated), "an even number up to the head's width " + std::to_string(head));
    }
}

void check_experts(const Checker & check) {
    const int64_t experts = check.range("expert_count", 0, kMaxExperts, 0);
    if (check.range("expert_used_count", 0, experts, 0) == 0 && experts > 0) {
        check.bad(check.key("expert_used_count"), "0", "1 to " + std::to_string(experts));
    }
    const int64_t groups = check.range("expert_group_count", 0, experts, 0);
    if (groups > 1) {
        if (experts % groups != 0 || groups >= experts) {
            check.bad(check.key("expert_group_count"), std::to_string(groups), "a divisor of " + std::to_string(experts) + " experts");
        }
        check.range("expert_group_used_count", 1, groups - 1, 0);
    }
}

void check_numbers(const Checker & check) {
    for (const char * name : {"attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.group_norm_epsilon"}) {
        check.real(name, 0, 1);
    }
    check.real("rope.freq_base", 1e-6, 1e30);
    check.real("rope.scaling.factor", 0, 1e9);
    const GgufFile & file = check.file();
    const auto scaling = file.text(check.key("rope.scaling.type"));
    if (scaling && *scaling != "none" && *scaling != "linear" && *scaling != "yarn" && *scaling != "longrope") {
        check.bad(check.key("rope.scaling.type"), quoted(*scaling), "none, linear, yarn or longrope");
    }
}

// libllama keeps tokens as C strings in a map and asserts that no two are equal.
void check_tokens_differ(const GgufFile & file, const GgufValue & tokens) {
    size_t capacity = 16;
    while (capacity < 2 * tokens.count) {
        capacity *= 2;
    }
    const auto token = [&](uint64_t index) {
        const std::string_view text = file.string(tokens, index);
        return text.substr(0, text.find('\0'));
    };
    std::vector<uint32_t> slots(capacity, 0);  // index + 1; open addressing
    for (uint64_t i = 0; i < tokens.count; ++i) {
        const std::string_view text = token(i);
        if (text.empty()) {
            continue;  // libllama names these by their index
        }
        size_t slot = std::hash<std::string_view>()(text) & (capacity - 1);
        while (slots[slot] != 0) {
            const uint64_t other = slots[slot] - 1;
            if (token(other) == text) {
                file.fail("tokens " + std::to_string(other) + " and " + std::to_string(i) + " of its vocabulary are the same: " + quoted(text) + kConvert);
            }
            slot = (slot + 1) & (capacity - 1);
        }
        slots[slot] = static_cast<uint32_t>(i + 1);
    }
}

void check_vocabulary(const GgufFile & file) {
    const auto model = file.text("tokenizer.ggml.model");
    if (model == "no_vocab" || model == "none") {
        return;
    }
    const GgufValue * tokens = file.find("tokenizer.ggml.tokens");
    if (!tokens || !tokens->is_array || tokens->type != GGUF_TYPE_STRING || tokens->count == 0) {
        file.fail("has no vocabulary (tokenizer.ggml.tokens)" + std::string(kConvert));
    }
    if (tokens->count > static_cast<uint64_t>(kMaxCount) / 4) {
        file.fail("has a vocabulary of " + std::to_string(tokens->count) + " tokens, which is impossible" + kConvert);
    }
    for (const char * key : {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
        const GgufValue * value = file.find(key);
        if (value && value->is_array && value->count != tokens->count) {
            file.fail(std::string(key) + " has " + std::to_string(value->count) + " values for " + std::to_string(tokens->count) + " tokens" + kConvert);
        }
    }
    const GgufTensor * embedding = file.find_tensor("token_embd.weight");
    if (embedding && embedding->shape.size() == 2 && embedding->shape[1] != tokens->count) {
        file.fail("has a vocabulary of " + std::to_string(tokens->count) + " tokens, but an embedding of " +
                  std::to_string(embedding->shape[1]) + " rows" + kConvert);
    }
    check_tokens_differ(file, *tokens);
}

// The other parts lie beside the first, which alone has the metadata: NAME-00001-of-00003.gguf.
void check_parts(const GgufFile & file) {
    const int64_t count = file.integer("split.count").value_or(1);
    if (count <= 1) {
        return;
    }
    const int64_t number = file.integer("split.no").value_or(0);
    const std::string & path = file.path();
    char suffix[64];
    const auto part = [&](int64_t i) {
        std::snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", static_cast<int>(i + 1), static_cast<int>(count));
        return std::string(suffix);
    };
    const std::string own = part(number);
    if (path.size() <= own.size() || path.compare(path.size() - own.size(), own.size(), own) != 0) {
        file.fail("is part " + std::to_string(number + 1) + " of " + std::to_string(count) + ", so its name must end in " + own);
    }
    const std::string stem = path.substr(0, path.size() - own.size());
    if (number != 0) {
        file.fail("is part " + std::to_string(number + 1) + " of " + std::to_string(count) + ": give the first part, " + stem + part(0));
    }
    uint64_t n_tensors = file.tensors().size();
    for (int64_t i = 1; i < count; ++i) {
        const GgufFile other(stem + part(i));
        if (other.integer("split.no") != i || other.integer("split.count") != count) {
            other.fail("is not part " + std::to_string(i + 1) + " of " + std::to_string(count) + " of " + path);
        }
        n_tensors += other.tensors().size();
    }
    const int64_t expected = file.integer("split.tensors.count").value_or(static_cast<int64_t>(n_tensors));
    if (expected != static_cast<int64_t>(n_tensors)) {
        file.fail("and its other parts hold " + std::to_string(n_tensors) + " tensors, expected " + std::to_string(expected));
    }
}

}  // namespace

void check_model(const GgufFile & file, bool vocab_only) {
    const auto architecture = file.text("general.architecture");
    if (!architecture || architecture->empty()) {
        file.fail("does not say which architecture it has (general.architecture)" + std::string(kConvert));
    }
    check_kind(file);
    check_parts(file);
    check_vocabulary(file);
    if (vocab_only) {
        return;
    }
    if (file.tensors().empty() && file.integer("split.count").value_or(1) <= 1) {
        file.fail("holds no tensors, it is a vocabulary only: get the whole model");
    }
    const Checker check(file, std::string(*architecture));
    const bool has_attention = file.find_tensor("blk.0.attn_q.weight") || file.find_tensor("blk.0.attn_qkv.weight");
    check_shape(check, has_attention);
    check_experts(check);
    check_numbers(check);
}

}  // namespace rim
