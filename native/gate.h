// gate.h: one call at a time, and stopping it from outside.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "errors.h"

namespace rim {

// Lets one thread in. A second one is refused with Error busy instead of waiting, except close(), which waits for the first.
class Gate {
  public:
    // Inside while it lives. Throws Error busy or closed.
    class Entry {
      public:
        explicit Entry(Gate & gate) : gate_(gate) { gate_.enter(); }
        ~Entry() { gate_.leave(); }
        Entry(const Entry &) = delete;
        Entry & operator=(const Entry &) = delete;

      private:
        Gate & gate_;
    };

    bool closed() const {
        std::lock_guard<std::mutex> lock(mutex_);
        return closed_;
    }

    // Sets `stop`, which whoever is inside should watch, waits until nobody is inside and lets nobody in any more. False if it
    // was closed before. Throws Error busy when called by the thread that is inside (from a callback).
    bool close(std::atomic<bool> & stop) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (inside_ && owner_ == std::this_thread::get_id()) {
            throw Error(ErrorKind::busy, "the session is at work in this very call: close it after the callback has returned");
        }
        stop = true;
        free_.wait(lock, [this] { return !inside_; });
        return !std::exchange(closed_, true);
    }

  private:
    void enter() {
        std::lock_guard<std::mutex> lock(mutex_);
        if (closed_) {
            throw Error(ErrorKind::closed, "the session is closed: make a new one");
        }
        if (inside_) {
            throw Error(ErrorKind::busy, "the session is at work in another call: wait for it or cancel() it");
        }
        inside_ = true;
        owner_ = std::this_thread::get_id();
    }

    void leave() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            inside_ = false;
        }
        free_.notify_all();
    }

    mutable std::mutex mutex_;
    std::condition_variable free_;
    std::thread::id owner_;
    bool inside_ = false;
    bool closed_ = false;
};

}  // namespace rim
