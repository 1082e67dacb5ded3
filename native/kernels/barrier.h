// barrier.h: how the threads of ggml's pool wait for each other, after every operation of a graph and within some.
//
// A small model decodes a token in 480 operations of a few microseconds each. ggml built with OpenMP, as llama-cpp-python is, waits at
// libgomp's barrier, where the last thread to come asks the system to wake sleepers every time, and the others soon sleep. ggml without
// OpenMP has a barrier of two counters in the pool, which stand there in either build. Ours is that one, but a thread
// that waits long sleeps, and then, and only then, it is woken by the system.
#pragma once

namespace rim::kernels {

// From now on libggml-cpu's threads wait in our way; not where the library is another than we know, where its calls cannot be sent here
// (redirect.h), and where RIM_EDGE_KERNELS is 0. Called while no thread computes a graph: half of the threads that wait in each way would
// wait for ever.
void replace_barrier();

bool is_barrier_replaced();

// Returns once every thread of the pool has called it. What they wrote before is seen by all after.
void wait_for_all(void * threadpool);

}  // namespace rim::kernels
