#include "quantize.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <regex>

#include "abort_guard.h"
#include "cpu.h"
#include "errors.h"
#include "gguf_check.h"
#include "gguf_file.h"
#include "log.h"
#include "text.h"

namespace rim {
namespace {

// Reads the quantizer's log, its only account of what it does:
//   "warning: blk.0.attn_q.weight  - ncols    576 not divisible by 256 (required for type    q4_K) ", "-> falling back to    q5_0"
//   "[   1/  20] token_embd.weight  - [   64,   512,     1,     1], type =    f32, "
//   "size =     0.12 MiB ->     0.03 MiB (q8_0)"                                   (the last one when only planning)
class QuantizeLog : public LogCapture {
  public:
    explicit QuantizeLog(const std::function<void(const std::string &)> & on_tensor) : on_tensor_(on_tensor) {}

    void add(int level, const std::string & line) override {
        LogCapture::add(level, line);
        const std::string wanted = between(line, "(required for type", ")");
        if (line.compare(0, 9, "warning: ") == 0 && !wanted.empty()) {
            asked_.emplace_back(trimmed(line.substr(9, line.find(" - ncols") - 9)), find_type(wanted));
            return;
        }
        const size_t bracket = line.find("] ");
        if (!line.empty() && line[0] == '[' && bracket != std::string::npos && line.find(", type = ") != std::string::npos) {
            const size_t start = bracket + 2;
            tensors.push_back({trimmed(line.substr(start, line.find(" - [", start) - start)),
                               find_type(between(line, ", type = ", ",")), std::nullopt});
            if (on_tensor_) {
                on_tensor_(tensors.back().name);
            }
            return;
        }
        if (!tensors.empty() && line.compare(0, 6, "size =") == 0 && line.find("->") != std::string::npos) {
            const std::string made = between(line, "(", ")");
            if (!made.empty()) {
                tensors.back().type = find_type(made);
            }
        }
    }

    // What went wrong, without the name of libllama's function.
    std::string failure() const {
        const std::string line = one_line(reason());
        const char * prefix = "failed to quantize: ";
        const size_t at = line.find(prefix);
        return at == std::string::npos ? line : line.substr(at + std::strlen(prefix));
    }

    std::vector<PlannedTensor> plan() {
        for (const auto & [name, type] : asked_) {
            for (PlannedTensor & tensor : tensors) {
                if (tensor.name == name && tensor.type != type) {
                    tensor.asked = type;
                }
            }
        }
        return std::move(tensors);
    }

    std::vector<PlannedTensor> tensors;

  private:
    static std::string trimmed(const std::string & text) {
        const size_t first = text.find_first_not_of(' ');
        return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(' ') - first + 1);
    }

    static std::string between(const std::string & line, const char * before, const char * after) {
        const size_t at = line.find(before);
        if (at == std::string::npos) {
            return "";
        }
        const size_t start = at + std::strlen(before);
        return trimmed(line.substr(start, line.find(after, start) - start));
    }

    static ggml_type find_type(const std::string & name) {
        for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
            const char * known = ggml_type_name(static_cast<ggml_type>(i));
            if (known && name == known) {
                return static_cast<ggml_type>(i);
            }
        }
        return GGML_TYPE_COUNT;
    }

    const std::function<void(const std::string &)> & on_tensor_;
    std::vector<std::pair<std::string, ggml_type>> asked_;
};

std::vector<llama_model_kv_override> overrides(const QuantizeOptions & options) {
    std::vector<llama_model_kv_override> list;
    for (const auto & [key, value] : options.metadata) {
        llama_model_kv_override entry = {};
        const std::string * text = std::get_if<std::string>(&value);
        if (key.empty() || key.size() >= sizeof entry.key || (text && text->size() >= sizeof entry.val_str)) {
            throw Error(ErrorKind::option, "metadata key " + quoted(key) + " or its text is too long for libllama's quantizer");
        }
        std::memcpy(entry.key, key.data(), key.size());
        if (text) {
            entry.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
            std::memcpy(entry.val_str, text->data(), text->size());
        } else {
            entry.tag = LLAMA_KV_OVERRIDE_TYPE_INT;
            entry.val_i64 = std::get<uint32_t>(value);
        }
        list.push_back(entry);
    }
    list.push_back({});
    return list;
}

std::vector<PlannedTensor> run(const std::string & source, const std::string & target, const QuantizeOptions & options, bool dry_run) {
    install_log();
    const GgufFile file(source);
    check_model(file, false);
    for (const auto & [pattern, type] : options.tensor_types) {
        (void)type;
        tensor_matches(pattern, {});
    }

    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = options.n_threads > 0 ? options.n_threads : physical_cores();
    params.ftype = options.file_type;
    params.output_tensor_type = options.output_type.value_or(GGML_TYPE_COUNT);
    params.token_embedding_type = options.embedding_type.value_or(GGML_TYPE_COUNT);
    params.allow_requantize = options.requantize;
    params.dry_run = dry_run;
    params.max_buf_size = size_t(256) << 20;  // a laptop has no 8 GiB to spare; rows are quantized one by one, so it changes nothing

    std::vector<llama_model_tensor_override> types;
    for (const auto & [pattern, type] : options.tensor_types) {
        types.push_back({pattern.c_str(), type});
    }
    types.push_back({nullptr, GGML_TYPE_COUNT});
    params.tt_overrides = options.tensor_types.empty() ? nullptr : types.data();

    std::vector<llama_model_imatrix_data> importance;
    for (const auto & [name, values] : options.importance) {
        importance.push_back({name.c_str(), values.data(), values.size()});
    }
    importance.push_back({nullptr, nullptr, 0});
    params.imatrix = options.importance.empty() ? nullptr : importance.data();

    const std::vector<llama_model_kv_override> metadata = overrides(options);
    params.kv_overrides = options.metadata.empty() ? nullptr : metadata.data();

    QuantizeLog log(options.on_tensor);
    uint32_t status = 1;
    std::string reason;
    try {
        const AbortGuard guard;
        status = llama_model_quantize(source.c_str(), target.c_str(), &params);
    } catch (const std::exception & error) {
        reason = one_line(error.what());
    }
    if (status != 0) {
        reason = reason.empty() ? log.failure() : reason;
        throw Error(ErrorKind::model_file, source + " cannot be quantized: " + (reason.empty() ? "libllama gives no reason" : reason));
    }
    return log.plan();
}

}  // namespace

const std::vector<FileType> & file_types() {
    static const std::vector<FileType> types = {
        {"f32", LLAMA_FTYPE_ALL_F32, GGML_TYPE_F32},
        {"bf16", LLAMA_FTYPE_MOSTLY_BF16, GGML_TYPE_BF16},
        {"f16", LLAMA_FTYPE_MOSTLY_F16, GGML_TYPE_F16},
        {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0, GGML_TYPE_Q8_0},
        {"q6_k", LLAMA_FTYPE_MOSTLY_Q6_K, GGML_TYPE_Q6_K},
        {"q5_k_m", LLAMA_FTYPE_MOSTLY_Q5_K_M, GGML_TYPE_Q5_K},
        {"q5_k_s", LLAMA_FTYPE_MOSTLY_Q5_K_S, GGML_TYPE_Q5_K},
        {"q5_1", LLAMA_FTYPE_MOSTLY_Q5_1, GGML_TYPE_Q5_1},
        {"q5_0", LLAMA_FTYPE_MOSTLY_Q5_0, GGML_TYPE_Q5_0},
        {"q4_k_m", LLAMA_FTYPE_MOSTLY_Q4_K_M, GGML_TYPE_Q4_K},
        {"q4_k_s", LLAMA_FTYPE_MOSTLY_Q4_K_S, GGML_TYPE_Q4_K},
        {"q4_1", LLAMA_FTYPE_MOSTLY_Q4_1, GGML_TYPE_Q4_1},
        {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0, GGML_TYPE_Q4_0},
        {"iq4_nl", LLAMA_FTYPE_MOSTLY_IQ4_NL, GGML_TYPE_IQ4_NL},
        {"iq4_xs", LLAMA_FTYPE_MOSTLY_IQ4_XS, GGML_TYPE_IQ4_XS},
        {"mxfp4_moe", LLAMA_FTYPE_MOSTLY_MXFP4_MOE, GGML_TYPE_MXFP4},
        {"q3_k_l", LLAMA_FTYPE_MOSTLY_Q3_K_L, GGML_TYPE_Q3_K},
        {"q3_k_m", LLAMA_FTYPE_MOSTLY_Q3_K_M, GGML_TYPE_Q3_K},
        {"q3_k_s", LLAMA_FTYPE_MOSTLY_Q3_K_S, GGML_TYPE_Q3_K},
        {"iq3_m", LLAMA_FTYPE_MOSTLY_IQ3_M, GGML_TYPE_IQ3_S},
        {"iq3_s", LLAMA_FTYPE_MOSTLY_IQ3_S, GGML_TYPE_IQ3_S},
        {"iq3_xs", LLAMA_FTYPE_MOSTLY_IQ3_XS, GGML_TYPE_IQ3_S},
        {"iq3_xxs", LLAMA_FTYPE_MOSTLY_IQ3_XXS, GGML_TYPE_IQ3_XXS},
        {"q2_k", LLAMA_FTYPE_MOSTLY_Q2_K, GGML_TYPE_Q2_K},
        {"q2_k_s", LLAMA_FTYPE_MOSTLY_Q2_K_S, GGML_TYPE_Q2_K},
        {"iq2_m", LLAMA_FTYPE_MOSTLY_IQ2_M, GGML_TYPE_IQ2_S},
        {"iq2_s", LLAMA_FTYPE_MOSTLY_IQ2_S, GGML_TYPE_IQ2_XS},
        {"iq2_xs", LLAMA_FTYPE_MOSTLY_IQ2_XS, GGML_TYPE_IQ2_XS},
        {"iq2_xxs", LLAMA_FTYPE_MOSTLY_IQ2_XXS, GGML_TYPE_IQ2_XXS},
        {"q2_0", LLAMA_FTYPE_MOSTLY_Q2_0, GGML_TYPE_Q2_0},
        {"tq2_0", LLAMA_FTYPE_MOSTLY_TQ2_0, GGML_TYPE_TQ2_0},
        {"iq1_m", LLAMA_FTYPE_MOSTLY_IQ1_M, GGML_TYPE_IQ1_M},
        {"tq1_0", LLAMA_FTYPE_MOSTLY_TQ1_0, GGML_TYPE_TQ1_0},
        {"iq1_s", LLAMA_FTYPE_MOSTLY_IQ1_S, GGML_TYPE_IQ1_S},
        {"q1_0", LLAMA_FTYPE_MOSTLY_Q1_0, GGML_TYPE_Q1_0},
    };
    return types;
}

const std::vector<ggml_type> & tensor_types() {
    static const std::vector<ggml_type> types = {
        GGML_TYPE_F32,     GGML_TYPE_BF16,    GGML_TYPE_F16,    GGML_TYPE_Q8_0,   GGML_TYPE_Q6_K,   GGML_TYPE_Q5_K,    GGML_TYPE_Q5_1,
        GGML_TYPE_Q5_0,    GGML_TYPE_Q4_K,    GGML_TYPE_Q4_1,   GGML_TYPE_Q4_0,   GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,  GGML_TYPE_MXFP4,
        GGML_TYPE_NVFP4,   GGML_TYPE_Q3_K,    GGML_TYPE_IQ3_S,  GGML_TYPE_IQ3_XXS, GGML_TYPE_Q2_K,  GGML_TYPE_IQ2_S,   GGML_TYPE_IQ2_XS,
        GGML_TYPE_IQ2_XXS, GGML_TYPE_Q2_0,    GGML_TYPE_TQ2_0,  GGML_TYPE_IQ1_M,  GGML_TYPE_TQ1_0,  GGML_TYPE_IQ1_S,   GGML_TYPE_Q1_0,
    };
    return types;
}

std::string tensor_type_name(ggml_type type) {
    std::string name = ggml_type_name(type);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return name;
}

ggml_type tensor_type(const std::string & name) {
    std::string known;
    for (const ggml_type type : tensor_types()) {
        if (tensor_type_name(type) == name) {
            return type;
        }
        known += (known.empty() ? "" : ", ") + tensor_type_name(type);
    }
    throw Error(ErrorKind::option, "tensor type " + quoted(name) + " is unknown: use one of " + known);
}

std::vector<PlannedTensor> plan_quantization(const std::string & source, const QuantizeOptions & options) {
    return run(source, "", options, true);
}

void quantize(const std::string & source, const std::string & target, const QuantizeOptions & options) {
    run(source, target, options, false);
}

std::vector<bool> tensor_matches(const std::string & pattern, const std::vector<std::string> & names) {
    std::vector<bool> found;
    try {
        const std::regex regex(pattern);
        for (const std::string & name : names) {
            found.push_back(std::regex_search(name, regex));
        }
    } catch (const std::regex_error & error) {
        throw Error(ErrorKind::option, "tensor pattern " + quoted(pattern) + " is not a regular expression: " + one_line(error.what()));
    }
    return found;
}

}  // namespace rim
