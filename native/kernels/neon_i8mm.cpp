// neon_i8mm.cpp: quantized weights with NEON's products of matrices of bytes (i8mm, ARMv8.6). Compiled with these instructions; entered only
// where the processor has them.
//
// One instruction multiplies 2 rows x 8 values by 2 tokens x 8 values: twice the products of a dot product, for tokens in pairs. Few tokens
// are bound by memory and stay with the dot product.
#include "neon.h"

namespace rim::kernels {

namespace {

struct NeonMatrices : Neon {
    static constexpr const char * name = "NEON i8mm";
    static constexpr bool pairs_tokens = true;

    // 8 values of each row: of two registers of 16 rows x 4 values, rows 0 to 7 and rows 8 to 15.
    RIM_INLINE static void join(Bytes & low, Bytes & high) {
        const Bytes a = low, b = high;
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            low.part[2 * i] = zip<0>(a.part[i], b.part[i]);
            low.part[2 * i + 1] = zip<1>(a.part[i], b.part[i]);
            high.part[2 * i] = zip<0>(a.part[i + 2], b.part[i + 2]);
            high.part[2 * i + 1] = zip<1>(a.part[i + 2], b.part[i + 2]);
        }
    }

    // For each of T tokens, `inner` bytes from one to the next, start + the products of n joined registers with its 4 * n values.
    template <int T, int n>
    RIM_INLINE static void sum_pairs(const uint8_t * joined, const int8_t * a, int64_t inner, const Ints * start, Ints * sums) {
        constexpr int n_pairs = (T + 1) / 2;
        int32x4_t parts[n_pairs][8];  // of 2 rows x 2 tokens each
#pragma GCC unroll 2
        for (int p = 0; p < n_pairs; ++p) {
            const int32x4_t two = vzip1q_s32(start[2 * p].part[0], start[std::min(2 * p + 1, T - 1)].part[0]);
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                parts[p][i] = two;
            }
        }
#pragma GCC unroll 4
        for (int k = 0; k < n / 2; ++k) {
            int8x16_t tokens[n_pairs];
#pragma GCC unroll 2
            for (int p = 0; p < n_pairs; ++p) {  // an odd last token is multiplied twice
                tokens[p] = vcombine_s8(vld1_s8(a + 2 * p * inner + k * 8), vld1_s8(a + std::min(2 * p + 1, T - 1) * inner + k * 8));
            }
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(joined + k * 128 + i * 16));
#pragma GCC unroll 2
                for (int p = 0; p < n_pairs; ++p) {
                    parts[p][i] = vmmlaq_s32(parts[p][i], w, tokens[p]);
                }
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            sums[t] = each<Ints>([&](int i) {
                const int32x4_t * const four_rows = parts[t / 2] + 2 * i;
                return t % 2 ? vuzp2q_s32(four_rows[0], four_rows[1]) : vuzp1q_s32(four_rows[0], four_rows[1]);
            });
        }
    }

  private:
    template <int half>
    RIM_INLINE static uint8x16_t zip(uint8x16_t a, uint8x16_t b) {
        const uint32x4_t x = vreinterpretq_u32_u8(a), y = vreinterpretq_u32_u8(b);
        return vreinterpretq_u8_u32(half == 0 ? vzip1q_u32(x, y) : vzip2q_u32(x, y));
    }
};

}  // namespace

const Kernel * neon_i8mm_kernel(ggml_type type) noexcept {
    return integer_kernel<NeonMatrices>(type);
}

}  // namespace rim::kernels
