// text.h: text of untrusted files made fit for messages.
#pragma once

#include <string>
#include <string_view>

namespace rim {

// On one line, harmless to a terminal: control characters, and bytes that are not UTF-8, become \xNN.
std::string one_line(std::string_view text);

// The same in quotes, cut at 60 bytes.
std::string quoted(std::string_view text);

}  // namespace rim
