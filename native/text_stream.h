// text_stream.h: from the bytes of sampled tokens to text that may be shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rim {

// Takes token pieces, which may end inside a UTF-8 character, and gives out whole characters only. Bytes that can be no
// UTF-8 become U+FFFD, as Python's errors="replace" does. Text that could be the start of a stop string is held back until
// it is clear; a stop string itself and what follows it never come out.
class TextStream {
  public:
    explicit TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {}

    // Add bytes; returns the text that can be shown now, maybe "". Nothing after stopped().
    std::string push(std::string_view bytes);

    // No more bytes come: returns what was held back; an unfinished character becomes U+FFFD.
    std::string finish();

    bool stopped() const noexcept { return stopped_; }          // a stop string was met
    const std::string & text() const noexcept { return text_; }  // everything given out so far

  private:
    std::string give(bool last);

    std::vector<std::string> stops_;
    std::string bytes_;  // start of an unfinished character
    std::string held_;   // whole characters not given out yet
    std::string text_;
    bool stopped_ = false;
};

// Moves the whole characters at the front of `bytes` to the end of `text`, leaving at most three bytes of an unfinished one;
// invalid bytes become U+FFFD, one per maximal valid prefix. With `last` an unfinished character becomes U+FFFD too.
void move_utf8(std::string & bytes, std::string & text, bool last);

}  // namespace rim
