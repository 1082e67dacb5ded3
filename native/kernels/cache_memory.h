// cache_memory.h: a context's cache takes memory as it fills, not all of it at once.
#pragma once

namespace rim::kernels {

// From now on, where libllama clears a buffer of the CPU to zero (a new cache of keys and values), whole pages are given back to the
// system, which brings zeros when they are written next; libllama itself would write all of them. Linux only (see redirect.h); elsewhere
// nothing changes.
void clear_by_giving_back();

}  // namespace rim::kernels
