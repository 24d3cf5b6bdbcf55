// Threads that take pieces of one job at a time.
//
// The caller takes part, and waits only for threads that are in the middle of a piece: one that
// never woke up, because another process has its core, is not missed.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace tiedlm {

class Pool {
  public:
    using Piece = void (*)(const void* job, int64_t piece);

    explicit Pool(int threads);  // the caller's included
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return int(workers.size()) + 1; }
    // piece(job, i) for every i in [0, count), each once, in any order, on any thread
    void run(int64_t count, Piece piece, const void* job);

  private:
    void work();
    void take_pieces();
    bool wait_for_job(uint64_t seen);

    std::mutex one_job;  // two callers take turns
    Piece piece = nullptr;
    const void* job = nullptr;
    int64_t count = 0;
    std::atomic<int64_t> next{0};
    std::atomic<uint64_t> turn{0};  // odd: a job is open
    std::atomic<int> inside{0};     // workers that may be reading the job
    std::atomic<int> asleep{0};
    std::atomic<bool> stopping{false};
    std::mutex sleeping;
    std::condition_variable wake;
    std::vector<std::thread> workers;
};

}  // namespace tiedlm
