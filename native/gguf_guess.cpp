#include "gguf_guess.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace rim {
namespace {

bool starts(std::string_view head, std::string_view prefix) { return head.substr(0, prefix.size()) == prefix; }

// Past white space and a UTF-8 mark, in lower case.
std::string text_start(std::string_view head) {
    if (starts(head, "\xEF\xBB\xBF")) {
        head.remove_prefix(3);
    }
    const size_t first = head.find_first_not_of(" \t\r\n");
    std::string text(first == std::string_view::npos ? std::string_view() : head.substr(first, 64));
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

bool is_safetensors(std::string_view head, uint64_t file_size) {
    if (head.size() < 10 || head[8] != '{') {
        return false;
    }
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i) {
        length = length << 8 | static_cast<uint8_t>(head[static_cast<size_t>(i)]);
    }
    return length < file_size;
}

}  // namespace

std::string guess_format(const uint8_t * bytes, size_t count, uint64_t file_size) {
    const std::string_view head(reinterpret_cast<const char *>(bytes), count);
    const std::string text = text_start(head);
    const auto all = [&](auto predicate) { return std::all_of(head.begin(), head.end(), predicate); };

    if (starts(text, "<!doctype") || starts(text, "<html") || starts(text, "<head") || starts(text, "<?xml")) {
        return "it is a web page: open the address in a browser and download the file itself";
    }
    if (starts(text, "version https://git-lfs")) {
        return "it is a Git LFS pointer, not the file: run \"git lfs pull\" or download the file itself";
    }
    if (starts(head, "PK\x03\x04")) {
        return "it is a zip archive (PyTorch checkpoints are zip archives too): convert the model to GGUF first";
    }
    if (starts(head, "\x80\x02") || starts(head, "\x80\x03") || starts(head, "\x80\x04") || starts(head, "\x80\x05")) {
        return "it is a Python pickle (an old PyTorch checkpoint): convert the model to GGUF first";
    }
    if (is_safetensors(head, file_size)) {
        return "it is a safetensors file: convert the model to GGUF first (rim-edge convert)";
    }
    if (starts(head, "ggjt") || starts(head, "tjgg") || starts(head, "lmgg") || starts(head, "ggml") || starts(head, "fmgg")) {
        return "it is a GGML file from before GGUF: get the model as GGUF";
    }
    if (starts(head, "\x1f\x8b") || starts(head, "\x28\xb5\x2f\xfd") || starts(head, "BZh") || starts(head, "\xfd" "7zXZ")) {
        return "it is compressed: unpack it first";
    }
    if (starts(head, "\x89HDF")) {
        return "it is an HDF5 file: convert the model to GGUF first";
    }
    if (starts(head, "\x08") && head.find("onnx") != std::string_view::npos) {
        return "it is an ONNX model: give the folder that holds it";
    }
    if (starts(text, "{") || starts(text, "[")) {
        return "it is JSON, not a model";
    }
    if (all([](char c) { return c == '\0'; })) {
        return "it starts with zeros only: an unfinished download, get the file again";
    }
    if (all([](char c) { return static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\r' || c == '\t'; })) {
        return "it is a text file";
    }
    return "it starts with other bytes than a GGUF file: give the path of a .gguf file";
}

}  // namespace rim
