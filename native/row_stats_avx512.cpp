// row_stats_avx512.cpp: compiled for AVX-512, entered only where the processor has it.
#include "row_stats.h"

namespace rim {

RowStats row_stats_avx512(const float * logits, int32_t n_vocab, bool entropy) {
    return row_stats_of(logits, n_vocab, entropy);
}

}  // namespace rim
