#include "text.h"

#include <cstdint>
#include <cstdio>

#include "utf8.h"

namespace rim {

std::string one_line(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const int length = utf8_length(text);
        const std::string_view character = text.substr(0, length > 0 ? static_cast<size_t>(length) : 1);
        const auto first = static_cast<uint8_t>(character[0]);
        const bool is_control = first < 0x20 || first == 0x7f || (length == 2 && first == 0xC2 && static_cast<uint8_t>(character[1]) < 0xA0) ||
                                character == "\u2028" || character == "\u2029";
        if (length > 0 && !is_control) {
            out += character;
        } else {
            for (const char c : character) {
                char escape[8];
                std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<uint8_t>(c));
                out += escape;
            }
        }
        text.remove_prefix(character.size());
    }
    return out;
}

std::string quoted(std::string_view text) {
    return "'" + one_line(text.substr(0, 60)) + (text.size() > 60 ? "...'" : "'");
}

}  // namespace rim
