// big_stack.h: run a function on a stack that is large enough for deep recursion.
//
// libllama splits text for some vocabularies with std::regex, which recurses once per character of a match: a long run of letters
// overflows the stack of an ordinary thread and ends the process.
#pragma once

#include <functional>

namespace rim {

// Call `work` in a thread with a stack of 256 MiB (address space; only what is used becomes memory) and wait for it. What it throws is
// thrown here. Throws Error backend if there is no such thread to be had.
void run_on_big_stack(const std::function<void()> & work);

}  // namespace rim
