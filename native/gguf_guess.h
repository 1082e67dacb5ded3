// gguf_guess.h: what a file that is not GGUF probably is, so that the message helps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rim {

// "an HTML page: ... " for the first bytes of a file; never empty.
std::string guess_format(const uint8_t * bytes, size_t count, uint64_t file_size);

}  // namespace rim
