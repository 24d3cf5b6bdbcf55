#include "pool.hpp"

#include <chrono>

namespace tiedlm {

namespace {

// A step has a job every 20 to 100 microseconds; past this, there is none to come soon.
constexpr std::chrono::microseconds SPIN{150};
constexpr int PAUSES = 32;  // between two looks at the clock

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers.emplace_back([this] { work(); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(sleeping);
        stopping = true;
    }
    wake.notify_all();
    for (std::thread& worker : workers) worker.join();
}

void Pool::run(int64_t pieces, Piece function, const void* argument) {
    if (pieces <= 1 || workers.empty()) {
        for (int64_t i = 0; i < pieces; ++i) function(argument, i);
        return;
    }
    std::lock_guard<std::mutex> lock(one_job);
    piece = function, job = argument, count = pieces;
    next.store(0);
    turn.fetch_add(1);  // opens
    if (asleep.load() > 0) {
        { std::lock_guard<std::mutex> order(sleeping); }  // a worker on its way to sleep gets there
        wake.notify_all();
    }
    take_pieces();
    turn.fetch_add(1);  // closes: a worker that comes now finds the turn even and leaves
    while (inside.load() > 0) pause();
}

void Pool::take_pieces() {
    for (;;) {
        const int64_t i = next.fetch_add(1);
        if (i >= count) return;
        piece(job, i);
    }
}

void Pool::work() {
    uint64_t seen = 0;
    while (wait_for_job(seen)) {
        // Enter first, look second: run() closes first and counts second, so that it either sees
        // this worker or is seen by it.
        inside.fetch_add(1);
        const uint64_t now = turn.load();
        if (now % 2 == 1) take_pieces();
        inside.fetch_sub(1);
        seen = now;
    }
}

// false: the pool is being taken down
bool Pool::wait_for_job(uint64_t seen) {
    const auto due = [&] {
        const uint64_t now = turn.load();
        return stopping.load() || (now % 2 == 1 && now != seen);
    };
    const auto until = std::chrono::steady_clock::now() + SPIN;
    do {
        for (int i = 0; i < PAUSES; ++i) {
            if (due()) return !stopping.load();
            pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock<std::mutex> lock(sleeping);
    asleep.fetch_add(1);
    wake.wait(lock, due);
    asleep.fetch_sub(1);
    return !stopping.load();
}

}  // namespace tiedlm
