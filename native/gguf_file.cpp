#include "gguf_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <limits>
#include <utility>

#include "errors.h"
#include "gguf_guess.h"
#include "text.h"
#include "utf8.h"

namespace rim {
namespace {

constexpr uint64_t kMaxHead = uint64_t(1) << 30;  // a head is some MB, of a vocabulary; 1 GiB is the limit of libllama for one string
constexpr uint64_t kMaxKey = 65535;               // the format's own limit
constexpr uint64_t kChunk = uint64_t(1) << 20;
constexpr const char * kAgain = ": the file is damaged, download or convert it again";

uint64_t element_size(gguf_type type) {
    switch (type) {
        case GGUF_TYPE_UINT8:
        case GGUF_TYPE_INT8:
        case GGUF_TYPE_BOOL: return 1;
        case GGUF_TYPE_UINT16:
        case GGUF_TYPE_INT16: return 2;
        case GGUF_TYPE_UINT32:
        case GGUF_TYPE_INT32:
        case GGUF_TYPE_FLOAT32: return 4;
        case GGUF_TYPE_UINT64:
        case GGUF_TYPE_INT64:
        case GGUF_TYPE_FLOAT64: return 8;
        default: return 0;
    }
}

class Descriptor {
  public:
    explicit Descriptor(int value) : value_(value) {}
    ~Descriptor() {
        if (value_ >= 0) {
            ::close(value_);
        }
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor & operator=(const Descriptor &) = delete;
    int get() const { return value_; }

  private:
    int value_;
};

}  // namespace

// The walk over the head: a cursor that reads more of the file as it goes, and never past its end.
class GgufFile::Walk {
  public:
    Walk(GgufFile & file, int descriptor) : file_(file), descriptor_(descriptor) {}

    void run() {
        header();
        for (uint64_t i = 0; i < n_values_; ++i) {
            value(i);
        }
        alignment();
        for (uint64_t i = 0; i < n_tensors_; ++i) {
            tensor(i);
        }
        data();
    }

  private:
    [[noreturn]] void bad(const std::string & what) const { file_.fail(what + kAgain); }

    std::string here() const { return " at byte " + std::to_string(at_); }

    uint64_t left() const { return file_.size_ - at_; }

    // Have `count` bytes from the cursor on in memory.
    void need(uint64_t count, const std::string & what) {
        if (count > left()) {
            file_.fail(what + here() + " does not fit the file, which ends at byte " + std::to_string(file_.size_) +
                       ": the download is unfinished or the file is damaged, get it again");
        }
        std::vector<uint8_t> & head = file_.head_;
        const uint64_t end = at_ + count;
        if (end > kMaxHead) {
            file_.fail("its metadata take more than 1 GiB (" + what + "): no model needs that");
        }
        while (head.size() < end) {
            const uint64_t start = head.size();
            const uint64_t step = std::min(file_.size_ - start, std::max(end - start, kChunk));
            head.resize(start + step);
            uint64_t done = 0;
            while (done < step) {
                const ssize_t got = ::pread(descriptor_, head.data() + start + done, step - done, static_cast<off_t>(start + done));
                if (got < 0 && errno == EINTR) {
                    continue;
                }
                if (got <= 0) {
                    file_.fail(std::string("cannot be read: ") + (got < 0 ? std::strerror(errno) : "it became shorter while it was read"));
                }
                done += static_cast<uint64_t>(got);
            }
        }
    }

    template <typename T> T read(const std::string & what) {
        need(sizeof(T), what);
        T number;
        std::memcpy(&number, file_.head_.data() + at_, sizeof(T));
        at_ += sizeof(T);
        return number;
    }

    std::string_view read_string(const std::string & what, uint64_t limit) {
        const uint64_t length = read<uint64_t>("the length of " + what);
        if (length > limit) {
            bad(what + here() + " claims to be " + std::to_string(length) + " bytes long");
        }
        need(length, what);
        const std::string_view text(reinterpret_cast<const char *>(file_.head_.data() + at_), length);
        at_ += length;
        return text;
    }

    void header() {
        need(std::min<uint64_t>(file_.size_, 4096), "the header");
        const std::vector<uint8_t> & head = file_.head_;
        if (head.size() < 4 || std::memcmp(head.data(), GGUF_MAGIC, 4) != 0) {
            file_.fail("is not a GGUF file: " + guess_format(head.data(), std::min<size_t>(head.size(), 4096), file_.size_));
        }
        at_ = 4;
        const uint32_t version = file_.version_ = read<uint32_t>("the version");
        if (version != 0 && (version & 0xFFFF) == 0) {
            file_.fail("was written for a big-endian machine: get the little-endian file");
        }
        if (version == 1) {
            file_.fail("has GGUF version 1, which libllama no longer reads: convert the model again");
        }
        if (version == 0 || version > GGUF_VERSION) {
            file_.fail("has GGUF version " + std::to_string(version) + ", this RiM Edge reads 2 to " + std::to_string(GGUF_VERSION) +
                       ": the file is damaged, or newer than this version");
        }
        n_tensors_ = read<uint64_t>("the number of tensors");
        n_values_ = read<uint64_t>("the number of metadata keys");
        if (n_values_ > left() / 13) {  // length of the key, type, one byte of value
            bad("claims " + std::to_string(n_values_) + " metadata keys, more than the file can hold");
        }
        if (n_tensors_ > left() / 24) {  // length of the name, number of dimensions, type, offset
            bad("claims " + std::to_string(n_tensors_) + " tensors, more than the file can hold");
        }
        file_.values_.reserve(n_values_);
        file_.tensors_.reserve(n_tensors_);
    }

    gguf_type read_type(const std::string & what) {
        const uint64_t position = at_;
        const uint32_t type = read<uint32_t>(what);
        if (type >= GGUF_TYPE_COUNT) {
            bad(what + " at byte " + std::to_string(position) + " is " + std::to_string(type) + ", which is no GGUF type");
        }
        return static_cast<gguf_type>(type);
    }

    void value(uint64_t index) {
        const std::string nth = "metadata key " + std::to_string(index + 1) + " of " + std::to_string(n_values_);
        const uint64_t start = at_;
        const std::string key(read_string(nth, kMaxKey));
        if (key.empty()) {
            bad(nth + " at byte " + std::to_string(start) + " is empty");
        }
        if (!is_utf8(key) || key.find('\0') != std::string::npos) {
            bad(nth + " at byte " + std::to_string(start) + " is not text: " + quoted(key));
        }
        const std::string name = "metadata key " + quoted(key);
        if (!file_.keys_.emplace(key, file_.values_.size()).second) {
            bad(name + " at byte " + std::to_string(start) + " is there twice");
        }

        GgufValue entry{};
        entry.type = read_type("the type of " + name);
        entry.is_array = entry.type == GGUF_TYPE_ARRAY;
        entry.count = 1;
        if (entry.is_array) {
            entry.type = read_type("the element type of " + name);
            if (entry.type == GGUF_TYPE_ARRAY) {
                file_.fail(name + here() + " is an array of arrays, which libllama cannot read");
            }
            entry.count = read<uint64_t>("the length of " + name);
        }
        if (entry.type == GGUF_TYPE_STRING) {
            strings(entry, name);
        } else {
            const uint64_t size = element_size(entry.type);
            if (entry.count > left() / size) {
                bad(name + here() + " claims " + std::to_string(entry.count) + " elements, more than the file can hold");
            }
            entry.position = at_;
            entry.length = entry.count * size;
            need(entry.length, name);
            at_ += entry.length;
        }
        file_.values_.emplace_back(key, std::move(entry));
    }

    void strings(GgufValue & entry, const std::string & name) {
        if (entry.count > left() / 8) {
            bad(name + here() + " claims " + std::to_string(entry.count) + " strings, more than the file can hold");
        }
        entry.position = entry.is_array ? at_ : at_ + 8;
        if (entry.is_array) {
            entry.strings.reserve(entry.count);
        }
        const std::string what = entry.is_array ? "a string of " + name : "the value of " + name;
        for (uint64_t i = 0; i < entry.count; ++i) {
            const std::string_view text = read_string(what, kMaxHead);
            if (entry.is_array) {
                entry.strings.push_back(at_ - text.size());
            }
        }
        entry.length = at_ - entry.position;
    }

    void alignment() {
        const GgufValue * value = file_.find(GGUF_KEY_GENERAL_ALIGNMENT);
        if (!value) {
            return;
        }
        if (value->is_array || value->type != GGUF_TYPE_UINT32) {
            bad("general.alignment is not a u32");
        }
        const uint64_t alignment = static_cast<uint64_t>(*file_.integer(GGUF_KEY_GENERAL_ALIGNMENT));
        if (alignment < 8 || (alignment & (alignment - 1)) != 0) {
            bad("general.alignment is " + std::to_string(alignment) + ", expected a power of two from 8 on");
        }
        file_.alignment_ = alignment;
    }

    void tensor(uint64_t index) {
        const std::string nth = "the name of tensor " + std::to_string(index + 1) + " of " + std::to_string(n_tensors_);
        const uint64_t start = at_;
        GgufTensor tensor{};
        tensor.name = std::string(read_string(nth, kMaxKey));
        const std::string name = "tensor " + quoted(tensor.name);
        if (tensor.name.empty() || tensor.name.size() >= GGML_MAX_NAME || !is_utf8(tensor.name) ||
            tensor.name.find('\0') != std::string::npos) {
            bad(nth + " at byte " + std::to_string(start) + " is not a text of 1 to " + std::to_string(GGML_MAX_NAME - 1) +
                " bytes: " + quoted(tensor.name));
        }
        if (!file_.tensor_names_.emplace(tensor.name, file_.tensors_.size()).second) {
            bad(name + " at byte " + std::to_string(start) + " is there twice");
        }

        const uint32_t n_dims = read<uint32_t>("the shape of " + name);
        if (n_dims > GGML_MAX_DIMS) {
            bad(name + " has " + std::to_string(n_dims) + " dimensions, at most " + std::to_string(GGML_MAX_DIMS) + " are possible");
        }
        uint64_t n_elements = 1;
        for (uint32_t i = 0; i < n_dims; ++i) {
            const uint64_t size = read<uint64_t>("the shape of " + name);
            if (size == 0) {
                bad(name + " has a dimension of size 0");
            }
            if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / n_elements) {
                bad(name + " has an impossible shape: more than 2^63 elements");
            }
            n_elements *= size;
            tensor.shape.push_back(size);
        }

        const uint32_t type = read<uint32_t>("the type of " + name);
        if (type >= GGML_TYPE_COUNT || ggml_blck_size(static_cast<ggml_type>(type)) <= 0 || ggml_type_size(static_cast<ggml_type>(type)) == 0) {
            file_.fail(name + " has the type " + std::to_string(type) +
                       ", which this libllama does not know: the file is damaged, too old, or newer than this version");
        }
        tensor.type = static_cast<ggml_type>(type);
        const auto block = static_cast<uint64_t>(ggml_blck_size(tensor.type));
        const uint64_t row = tensor.shape.empty() ? 1 : tensor.shape[0];
        if (row % block != 0) {
            bad(name + " has rows of " + std::to_string(row) + " elements, no multiple of " + std::to_string(block) + " as " +
                ggml_type_name(tensor.type) + " needs");
        }
        const uint64_t n_blocks = n_elements / block;
        if (n_blocks > std::numeric_limits<uint64_t>::max() / 2 / ggml_type_size(tensor.type)) {
            bad(name + " has an impossible size");
        }
        tensor.size_bytes = n_blocks * ggml_type_size(tensor.type);
        tensor.offset = read<uint64_t>("the offset of " + name);  // relative to the data until data() knows where they start
        file_.tensors_.push_back(std::move(tensor));
    }

    // Tensors follow each other without gaps but for padding: libllama takes nothing else.
    void data() {
        const uint64_t alignment = file_.alignment_;
        file_.data_offset_ = n_tensors_ == 0 ? at_ : (at_ + alignment - 1) / alignment * alignment;
        if (file_.data_offset_ > file_.size_) {
            need(file_.data_offset_ - at_, "the tensor data");
        }
        uint64_t expected = 0;
        for (GgufTensor & tensor : file_.tensors_) {
            const std::string name = "tensor " + quoted(tensor.name);
            if (tensor.offset != expected) {
                bad(name + " is said to start at byte " + std::to_string(tensor.offset) + " of the data, expected " + std::to_string(expected));
            }
            const uint64_t room = file_.size_ - file_.data_offset_;
            if (tensor.offset > room || tensor.size_bytes > room - tensor.offset) {
                file_.fail(name + " needs " + std::to_string(tensor.size_bytes) + " bytes from byte " +
                           std::to_string(file_.data_offset_) + "+" + std::to_string(tensor.offset) + " on, but the file ends at byte " +
                           std::to_string(file_.size_) + ": the download is unfinished or the file is damaged, get it again");
            }
            expected = (tensor.offset + tensor.size_bytes + alignment - 1) / alignment * alignment;
            tensor.offset += file_.data_offset_;
        }
    }

    GgufFile & file_;
    int descriptor_;
    uint64_t at_ = 0;
    uint64_t n_tensors_ = 0;
    uint64_t n_values_ = 0;
};

GgufFile::GgufFile(const std::string & path) : path_(path) {
    if (path.empty() || path.find('\0') != std::string::npos) {
        throw Error(ErrorKind::model_file, "the path of the model is empty or holds a zero byte: give the path of a .gguf file");
    }
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
        fail(errno == ENOENT ? "does not exist: give the path of a .gguf file" : std::string("cannot be read: ") + std::strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        fail("is a directory: give the path of the .gguf file in it");
    }
    if (!S_ISREG(info.st_mode)) {
        fail("is not a regular file: give the path of a .gguf file");
    }
    const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (descriptor.get() < 0 || ::fstat(descriptor.get(), &info) != 0) {
        fail(std::string("cannot be read: ") + std::strerror(errno));
    }
    size_ = static_cast<uint64_t>(info.st_size);
    if (size_ == 0) {
        fail("is empty: download or convert it again");
    }
    Walk(*this, descriptor.get()).run();
    head_.shrink_to_fit();
}

void GgufFile::fail(const std::string & what) const { throw Error(ErrorKind::model_file, path_ + ": " + what); }

const GgufValue * GgufFile::find(const std::string & key) const {
    const auto found = keys_.find(key);
    return found == keys_.end() ? nullptr : &values_[found->second].second;
}

const GgufTensor * GgufFile::find_tensor(const std::string & name) const {
    const auto found = tensor_names_.find(name);
    return found == tensor_names_.end() ? nullptr : &tensors_[found->second];
}

std::string_view GgufFile::string(const GgufValue & value, uint64_t index) const {
    const uint64_t start = value.is_array ? value.strings.at(index) : value.position;
    uint64_t length = 0;
    std::memcpy(&length, head_.data() + start - 8, 8);
    return {reinterpret_cast<const char *>(head_.data() + start), length};
}

std::optional<int64_t> GgufFile::integer(const std::string & key) const {
    const GgufValue * value = find(key);
    if (!value || value->is_array) {
        return std::nullopt;
    }
    const auto as = [&](auto kind) {
        std::memcpy(&kind, data(*value), sizeof kind);
        return kind;
    };
    switch (value->type) {
        case GGUF_TYPE_UINT8: return as(uint8_t{});
        case GGUF_TYPE_INT8: return as(int8_t{});
        case GGUF_TYPE_UINT16: return as(uint16_t{});
        case GGUF_TYPE_INT16: return as(int16_t{});
        case GGUF_TYPE_UINT32: return as(uint32_t{});
        case GGUF_TYPE_INT32: return as(int32_t{});
        case GGUF_TYPE_INT64: return as(int64_t{});
        case GGUF_TYPE_UINT64:
            return static_cast<int64_t>(std::min(as(uint64_t{}), static_cast<uint64_t>(std::numeric_limits<int64_t>::max())));
        default: return std::nullopt;
    }
}

std::optional<double> GgufFile::real(const std::string & key) const {
    const GgufValue * value = find(key);
    if (!value || value->is_array || (value->type != GGUF_TYPE_FLOAT32 && value->type != GGUF_TYPE_FLOAT64)) {
        return std::nullopt;
    }
    if (value->type == GGUF_TYPE_FLOAT64) {
        double number;
        std::memcpy(&number, data(*value), sizeof number);
        return number;
    }
    float number;
    std::memcpy(&number, data(*value), sizeof number);
    return number;
}

std::optional<std::string_view> GgufFile::text(const std::string & key) const {
    const GgufValue * value = find(key);
    if (!value || value->is_array || value->type != GGUF_TYPE_STRING) {
        return std::nullopt;
    }
    return string(*value, 0);
}

}  // namespace rim
