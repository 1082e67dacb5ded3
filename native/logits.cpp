// logits.cpp: softmax statistics in the widest registers of the processor, tokens that may not be sampled.
#include "logits.h"

#include <algorithm>

#include "kernels/instructions.h"
#include "row_stats.h"

namespace rim {

RowStats row_stats_anywhere(const float * logits, int32_t n_vocab, bool entropy) {
    return row_stats_of(logits, n_vocab, entropy);
}

RowStats row_stats(const float * logits, int32_t n_vocab, bool entropy) {
#if defined(RIM_KERNELS_X86)
    static const auto widest = kernels::has_avx512_vnni() ? row_stats_avx512 : kernels::has_avx2() ? row_stats_avx2 : row_stats_anywhere;
    return widest(logits, n_vocab, entropy);
#else
    return row_stats_anywhere(logits, n_vocab, entropy);
#endif
}

void Banned::add(llama_token token) {
    if (token >= 0 && static_cast<size_t>(token) < mask_.size() && !has(token)) {
        mask_[static_cast<size_t>(token)] = 1;
        tokens_.push_back(token);
    }
}

llama_token top_token(const float * logits, int32_t n_vocab, const RowStats & stats, const Banned & banned) {
    if (stats.top < n_vocab && !banned.has(stats.top)) {
        return stats.top;
    }
    llama_token best = -1;
    for (llama_token i = 0; i < n_vocab; ++i) {
        if (!banned.has(i) && (best < 0 || logits[i] > logits[best])) {
            best = i;
        }
    }
    return std::max<llama_token>(best, 0);
}

}  // namespace rim
