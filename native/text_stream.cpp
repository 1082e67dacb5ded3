// text_stream.cpp: UTF-8 assembly and stop strings.
#include "text_stream.h"

#include <algorithm>
#include <cstdint>

namespace rim {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

enum class Check { whole, unfinished, invalid };

// Looks at the character that starts at `p`. `length`: bytes of the character, of its start so far, or of the invalid prefix
// (Unicode 15, table 3-7; "maximal subpart" as in its section 3.9).
Check check_character(const unsigned char * p, size_t available, size_t & length) {
    const unsigned char lead = p[0];
    length = 1;
    if (lead < 0x80) {
        return Check::whole;
    }
    size_t wanted = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        wanted = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        wanted = 3;
        low = lead == 0xE0 ? 0xA0 : low;
        high = lead == 0xED ? 0x9F : high;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        wanted = 4;
        low = lead == 0xF0 ? 0x90 : low;
        high = lead == 0xF4 ? 0x8F : high;
    } else {
        return Check::invalid;
    }
    for (size_t i = 1; i < wanted; ++i) {
        if (i >= available) {
            length = i;
            return Check::unfinished;
        }
        if (p[i] < low || p[i] > high) {
            length = i;
            return Check::invalid;
        }
        low = 0x80;
        high = 0xBF;
    }
    length = wanted;
    return Check::whole;
}

// Length of the longest end of `text` that is a proper start of `stop`.
size_t start_of(const std::string & text, const std::string & stop) {
    for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
        if (text.compare(text.size() - n, n, stop, 0, n) == 0) {
            return n;
        }
    }
    return 0;
}

}  // namespace

void move_utf8(std::string & bytes, std::string & text, bool last) {
    const auto * p = reinterpret_cast<const unsigned char *>(bytes.data());
    size_t at = 0;
    while (at < bytes.size()) {
        size_t length = 0;
        const Check check = check_character(p + at, bytes.size() - at, length);
        if (check == Check::unfinished && !last) {
            break;
        }
        if (check == Check::whole) {
            text.append(bytes, at, length);
        } else {
            text.append(replacement);
        }
        at += length;
    }
    bytes.erase(0, at);
}

std::string TextStream::push(std::string_view bytes) {
    if (stopped_) {
        return {};
    }
    bytes_.append(bytes);
    move_utf8(bytes_, held_, false);
    return give(false);
}

std::string TextStream::finish() {
    if (stopped_) {
        return {};
    }
    move_utf8(bytes_, held_, true);
    return give(true);
}

std::string TextStream::give(bool last) {
    size_t end = held_.size();
    for (const std::string & stop : stops_) {
        const size_t found = held_.find(stop);
        if (found != std::string::npos) {
            stopped_ = true;
            end = std::min(end, found);
        }
    }
    if (!stopped_ && !last) {
        size_t hold = 0;
        for (const std::string & stop : stops_) {
            hold = std::max(hold, start_of(held_, stop));
        }
        end -= hold;  // between characters: a stop string begins with one
    }
    std::string out = held_.substr(0, end);
    held_.erase(0, end);
    if (stopped_) {
        held_.clear();
        bytes_.clear();
    }
    text_ += out;
    return out;
}

}  // namespace rim
