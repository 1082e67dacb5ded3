// foresight.h: whether weights that few tokens meet are read faster if the processor is told ahead what comes.
//
// Processors differ: Zen 5 reads Q4_K a quarter faster when told, Zen 4 lost up to a third, and it is not the same for all weight types. So
// each thread tries both ways in turn while it decodes, and the one with the smaller median holds from then on in the whole process, for
// each type on its own. It changes no result.
#pragma once

#include <chrono>
#include <cstdint>

#include "kernel.h"

namespace rim::kernels {

// Around the parts that a thread computes of one product.
class Foresight {
  public:
    Foresight(const Kernel & kernel, ggml_type type, int64_t n_tokens) noexcept;

    // Calls work(told), which reads so many bytes of weights in one run.
    template <class Work>
    void read(int64_t bytes, const Work & work) {
        using Clock = std::chrono::steady_clock;
        constexpr int64_t long_run = 64 << 10;  // bytes that tell how fast a thread reads
        if (!tries_ || bytes <= long_run) {
            work(told_);
            return;
        }
        const auto began = Clock::now();
        work(told_);
        add(std::chrono::duration<double>(Clock::now() - began).count() / static_cast<double>(bytes));
    }

  private:
    // What a byte took, this way; chooses the next.
    void add(double seconds_a_byte) noexcept;

    size_t question_;
    bool told_ = false, tries_ = false;
};

}  // namespace rim::kernels
