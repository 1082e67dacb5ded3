// foresight.h: whether weights that few tokens meet are read faster if the processor is told ahead what comes.
//
// Processors differ: Zen 5 reads Q4_K a quarter faster when told, Zen 4 loses up to a third, and it is not the same for all weight types. So
// each thread tries both ways in turn while it decodes, and the one with the smaller median holds from then on in the whole process, for
// each type on its own. It changes no result.
#pragma once

#include <cstddef>

#include "kernel.h"

namespace rim::kernels {

// Around the parts that a thread computes of one product.
class Foresight {
  public:
    Foresight(const Kernel & kernel, ggml_type type, int64_t n_tokens) noexcept;

    bool told() const noexcept { return told_; }
    bool tries() const noexcept { return tries_; }
    // How long a part took that was one long run of memory. May change told().
    void add(double seconds, size_t bytes) noexcept;

  private:
    int question_ = 0;
    bool told_ = false, tries_ = false;
};

}  // namespace rim::kernels
