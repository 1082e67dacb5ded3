// gguf_file.h: the head of a GGUF file, read with every step checked.
//
// A model file is untrusted: libllama aborts the process on some malformed ones. GgufFile walks the same bytes first and throws
// Error model_file, which names what is wrong and where, whatever the bytes are. It allocates no more than the file's head is long.
// The format: docs/gguf.md of ggml. The head of one file is [magic version n_tensors n_kv][key-values][tensor infos][padding].
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <ggml.h>
#include <gguf.h>

namespace rim {

struct GgufTensor {
    std::string name;
    std::vector<uint64_t> shape;  // as in the file: fastest dimension first
    ggml_type type;
    uint64_t offset;      // bytes from the start of the file
    uint64_t size_bytes;
};

struct GgufValue {
    gguf_type type;     // of the value, or of the array's elements
    bool is_array;
    uint64_t count;     // elements; 1 for a scalar
    uint64_t position;  // where the data start, bytes from the start of the file
    uint64_t length;    // of the data in bytes
    std::vector<uint64_t> strings;  // array of strings: where each one's bytes start (its length is the u64 before)
};

class GgufFile {
  public:
    // Throws Error model_file.
    explicit GgufFile(const std::string & path);

    const std::string & path() const noexcept { return path_; }
    uint64_t size_bytes() const noexcept { return size_; }
    uint32_t version() const noexcept { return version_; }
    uint64_t alignment() const noexcept { return alignment_; }
    uint64_t data_offset() const noexcept { return data_offset_; }  // of the first tensor's data
    const std::vector<std::pair<std::string, GgufValue>> & values() const noexcept { return values_; }
    const std::vector<GgufTensor> & tensors() const noexcept { return tensors_; }

    const GgufValue * find(const std::string & key) const;       // nullptr where absent
    const GgufTensor * find_tensor(const std::string & name) const;

    // The value of a scalar; nullopt where the key is absent or of another type (any integer type counts as integer).
    std::optional<int64_t> integer(const std::string & key) const;  // u64 above 2^63-1 saturates
    std::optional<double> real(const std::string & key) const;      // f32 or f64
    std::optional<std::string_view> text(const std::string & key) const;

    // Raw data of a value; strings without their length. Valid while the GgufFile lives.
    const uint8_t * data(const GgufValue & value) const { return head_.data() + value.position; }
    std::string_view string(const GgufValue & value, uint64_t index) const;

    // Error model_file with this file's name in front.
    [[noreturn]] void fail(const std::string & what) const;

  private:
    class Walk;

    std::string path_;
    uint64_t size_ = 0;
    uint32_t version_ = 0;
    uint64_t alignment_ = GGUF_DEFAULT_ALIGNMENT;
    uint64_t data_offset_ = 0;
    std::vector<uint8_t> head_;
    std::vector<std::pair<std::string, GgufValue>> values_;
    std::unordered_map<std::string, size_t> keys_;
    std::vector<GgufTensor> tensors_;
    std::unordered_map<std::string, size_t> tensor_names_;
};

}  // namespace rim
