// utf8.h: the little that is needed of UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace rim {

// Length of the well-formed UTF-8 character at the start of `text` (1..4); 0 if there is none; -n if `text` is a proper prefix of a
// character that n more bytes may complete. Well-formed as in table 3-7 of the Unicode standard: no surrogates, nothing overlong.
inline int utf8_length(std::string_view text) {
    if (text.empty()) {
        return 0;
    }
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t first = byte(0);
    if (first < 0x80) {
        return 1;
    }
    const int length = first >= 0xC2 && first <= 0xDF ? 2 : first >= 0xE0 && first <= 0xEF ? 3 : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
    for (int i = 1; i < length; ++i) {
        if (static_cast<size_t>(i) == text.size()) {
            return i - length;
        }
        const uint8_t low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        const uint8_t high = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (byte(static_cast<size_t>(i)) < low || byte(static_cast<size_t>(i)) > high) {
            return 0;
        }
    }
    return length;
}

inline bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const int length = utf8_length(text);
        if (length <= 0) {
            return false;
        }
        text.remove_prefix(static_cast<size_t>(length));
    }
    return true;
}

}  // namespace rim
