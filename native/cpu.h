// cpu.h: how many threads work well on this machine.
#pragma once

namespace rim {

// Physical cores that this process may use, at least 1: hyper-threads count once, and the CPU affinity of the process and the
// CPU quota of its control group are respected. On a Mac: the performance cores.
int physical_cores();

// Processors that this process may use, at least 1: as above, but every hyper-thread counts, and on a Mac every core.
int processors();

}  // namespace rim
