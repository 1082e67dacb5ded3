// logits_place.h: logits are read where a pass has computed them.
//
// After a pass libllama copies all rows of logits into memory of its own, on one thread: 1.5 MB for eight answers of a model with 49,152
// tokens, 4 MB with 128,256. Nobody changes them in the graph's memory before the next pass, and a session is done with them by then.
#pragma once

#include <cstddef>

namespace rim {

class LogitsPlace {
  public:
    // From now on passes that are watched leave their logits where they are: where libllama's calls can be sent here (kernels/redirect.h),
    // and not where RIM_EDGE_KERNELS is 0; elsewhere libllama copies them, and row() is what it is given.
    static void enable();
    static bool is_enabled() noexcept;

    // Around a call of llama_decode() on this thread. Its logits stay where they are if it is one micro-batch, whose tokens stay in order;
    // else libllama copies them.
    class Watch {
      public:
        Watch(LogitsPlace & place, bool one_micro_batch) noexcept;
        ~Watch();
        Watch(const Watch &) = delete;
        Watch & operator=(const Watch &) = delete;
    };

    // Where that row is which libllama's pointer, from llama_get_logits_ith(), means; until the next pass.
    const float * row(const float * copy) const noexcept;

  private:
    struct Call;

    const char * copy_ = nullptr;  // where libllama wants them
    const char * place_ = nullptr;
    size_t n_bytes_ = 0;
};

}  // namespace rim
