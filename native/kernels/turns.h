// turns.h: items of one operation's work, which the threads of ggml's pool take one after another.
#pragma once

#include <cstdint>

#include <ggml.h>

#include "ggml_private.h"

namespace rim::kernels {

// Thread i begins with item i; then whoever is free takes the next one. The count stands in the operation's own parameters, which ggml
// makes zero with the operation and whose last word no operation uses; the last thread to leave makes it zero again. So no thread waits
// for another to begin, and contexts that share weights do not meet. Every thread of the pool must take items until there are none.
class Turns {
  public:
    Turns(const ggml_private::ComputeParams & params, ggml_tensor * op, int64_t n_items)
        : taken_(&op->op_params[GGML_MAX_OP_PARAMS / sizeof(int32_t) - 1]), thread_(params.thread), n_threads_(params.n_threads),
          n_items_(n_items) {}

    // Whether there was one left.
    bool take(int64_t & item) {
        if (!began_) {
            began_ = true;
            item = thread_;
            if (item < n_items_) {
                return true;
            }
        }
        if (n_items_ <= n_threads_) {  // nobody counts, which takes longer than it looks: the count travels between cores
            return false;
        }
        item = n_threads_ + __atomic_fetch_add(taken_, 1, __ATOMIC_RELAXED);
        if (item < n_items_) {
            return true;
        }
        if (item == n_threads_ + n_items_ - 1) {
            __atomic_store_n(taken_, 0, __ATOMIC_RELAXED);
        }
        return false;
    }

  private:
    int32_t * taken_;
    int64_t thread_, n_threads_, n_items_;
    bool began_ = false;
};

}  // namespace rim::kernels
