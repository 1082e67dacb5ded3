// exponential.h: exp() in the words of an instruction set (integer_types.h). Included by files that are compiled with its instructions.
#pragma once

#include "integer_types.h"

namespace rim::kernels {

namespace {

// exp(x) for x <= 0, relative error below 3e-7; exactly 1 for 0, exactly 0 below -87 (and for -inf).
template <class Isa>
RIM_INLINE typename Isa::Floats exp_negative(typename Isa::Floats x) {
    using Floats = typename Isa::Floats;
    const Floats whole = Isa::rounded(Isa::times(x, Isa::floats(1.44269504f)));
    // x - whole * ln 2, in two parts: exact for what float32 can tell
    Floats part = Isa::fused(whole, Isa::floats(-0.693359375f), x);
    part = Isa::fused(whole, Isa::floats(2.12194440e-4f), part);
    Floats p = Isa::floats(1.0f / 720);
    p = Isa::fused(p, part, Isa::floats(1.0f / 120));
    p = Isa::fused(p, part, Isa::floats(1.0f / 24));
    p = Isa::fused(p, part, Isa::floats(1.0f / 6));
    p = Isa::fused(p, part, Isa::floats(0.5f));
    p = Isa::fused(p, part, Isa::floats(1.0f));
    p = Isa::fused(p, part, Isa::floats(1.0f));
    return Isa::select(Isa::below(x, -87.0f), Isa::floats(0.0f), Isa::times_power(p, whole));
}

}  // namespace

}  // namespace rim::kernels
