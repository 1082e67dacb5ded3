// quantize.h: libllama's quantizer: which file and tensor types it knows, what it would make of a file, and making it.
//
// libllama chooses the type of every tensor from the file type, and falls back to another one, with no more than a line in its log,
// where a row's length is no multiple of the type's block. plan_quantization() tells both the choice and what it would have been.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ggml.h>
#include <llama.h>

namespace rim {

struct FileType {
    const char * name;  // as llama-quantize takes it, lower case: "q4_k_m"
    llama_ftype number;
    ggml_type base;     // type of most tensors; others get more or fewer bits by their place in the model
};

// Every file type that libllama's quantizer makes.
const std::vector<FileType> & file_types();

// Every tensor type that can be asked for.
const std::vector<ggml_type> & tensor_types();

// Name of a tensor type, lower case: "q4_k". And back; throws Error option with the list of names.
std::string tensor_type_name(ggml_type type);
ggml_type tensor_type(const std::string & name);

struct QuantizeOptions {
    llama_ftype file_type = LLAMA_FTYPE_MOSTLY_Q8_0;
    std::vector<std::pair<std::string, ggml_type>> tensor_types;  // (regex to be found in the name, type); the first match wins
    std::optional<ggml_type> output_type;                         // of output.weight
    std::optional<ggml_type> embedding_type;                      // of token_embd.weight
    std::vector<std::pair<std::string, std::vector<float>>> importance;  // tensor name -> mean square of each input column
    std::vector<std::pair<std::string, std::variant<uint32_t, std::string>>> metadata;  // keys to set; texts up to 127 bytes
    bool requantize = false;  // take quantized tensors as input
    int32_t n_threads = 0;    // 0: physical cores available to the process
    std::function<void(const std::string &)> on_tensor;  // its name, when work on a tensor begins
};

struct PlannedTensor {
    std::string name;
    ggml_type type;                  // that the file will have
    std::optional<ggml_type> asked;  // that libllama wanted, where a row's length does not allow it
};

// The tensors of the file that quantize() would make, in its order. Reads the head of `source` only.
// Throws Error model_file, option.
std::vector<PlannedTensor> plan_quantization(const std::string & source, const QuantizeOptions & options);

// Writes `target`. Cannot be stopped, and a broken weight may end the process: for a process of its own.
// The same input gives the same bytes, whatever the number of threads. Throws Error model_file, option, backend.
void quantize(const std::string & source, const std::string & target, const QuantizeOptions & options);

// Which names a pattern is found in, by the regular expressions of the quantizer (ECMAScript). Throws Error option.
std::vector<bool> tensor_matches(const std::string & pattern, const std::vector<std::string> & names);

}  // namespace rim
