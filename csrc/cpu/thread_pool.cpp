#include "thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ps {
namespace {

constexpr int kIndexBits = 24;
constexpr uint64_t kIndexMask = (uint64_t(1) << kIndexBits) - 1;
constexpr int kSpinsBeforeSleep = 4000; /* about 100 us */
constexpr int kSpinsBeforeYield = 20000;
constexpr int64_t kScratchAlignment = 64;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

uint64_t next_index(uint64_t ticket) { return ticket & kIndexMask; }
uint64_t task_count(uint64_t ticket) { return ticket >> kIndexBits & kIndexMask; }
bool has_tasks(uint64_t ticket) { return next_index(ticket) < task_count(ticket); }

}  // namespace

ThreadPool::ThreadPool(int num_threads) : scratch_(num_threads) {
  workers_.reserve(static_cast<size_t>(num_threads));
  try {
    for (int thread = 1; thread < num_threads; thread++) workers_.emplace_back([this, thread] { work(thread); });
  } catch (...) { /* the system refuses more threads: the running ones must end before the pool does */
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread &worker : workers_) worker.join();
}

int ThreadPool::size() const { return static_cast<int>(scratch_.size()); }

void ThreadPool::reserve_scratch(int64_t bytes) {
  if (bytes <= scratch_bytes_) return;
  for (std::vector<char> &memory : scratch_) memory.assign(static_cast<size_t>(bytes + kScratchAlignment), 0);
  scratch_bytes_ = bytes;
}

namespace {

void *aligned_start(std::vector<char> &memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + (kScratchAlignment - address % kScratchAlignment) % kScratchAlignment;
}

}  // namespace

void *ThreadPool::scratch(int thread) { return aligned_start(scratch_[thread]); }

void *ThreadPool::shared_scratch(int64_t bytes) {
  if (static_cast<size_t>(bytes + kScratchAlignment) > shared_.size()) shared_.assign(static_cast<size_t>(bytes + kScratchAlignment), 0);
  return aligned_start(shared_);
}

bool ThreadPool::run_one(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (has_tasks(ticket)) {
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    /* The claimed task is unfinished, so the caller still waits, and function_ and context_ are still valid. */
    function_(context_, static_cast<int64_t>(next_index(ticket)), thread);
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }
  return false;
}

void ThreadPool::work(int thread) {
  for (int spins = 0; !stopping_; spins++) {
    if (run_one(thread)) {
      spins = 0;
    } else if (spins < kSpinsBeforeSleep) {
      pause();
    } else {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_++;
      wake_.wait(lock, [this] { return stopping_ || has_tasks(ticket_.load()); });
      sleeping_--;
      spins = 0;
    }
  }
}

void ThreadPool::run(int64_t count, Function function, const void *context) {
  if (workers_.empty() || count <= 1) {
    for (int64_t index = 0; index < count; index++) function(context, index, 0);
    return;
  }
  for (int64_t first = 0; first < count; first += int64_t(kIndexMask)) { /* the ticket counts to 2^24 */
    const int64_t tasks = std::min(count - first, int64_t(kIndexMask));
    struct Offset {
      Function function;
      const void *context;
      int64_t first;
    } offset{function, context, first};
    if (first > 0) {
      function_ = [](const void *c, int64_t index, int thread) {
        const Offset &o = *static_cast<const Offset *>(c);
        o.function(o.context, o.first + index, thread);
      };
      context_ = &offset;
    } else {
      function_ = function;
      context_ = context;
    }
    done_.store(0, std::memory_order_relaxed);
    const uint64_t turn = (ticket_.load(std::memory_order_relaxed) >> 2 * kIndexBits) + 1;
    ticket_.store(turn << 2 * kIndexBits | static_cast<uint64_t>(tasks) << kIndexBits); /* sequentially consistent: before sleeping_ is read */
    if (sleeping_.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    while (run_one(0)) {
    }
    for (int spins = 0; done_.load(std::memory_order_acquire) < tasks; spins++) {
      if (spins < kSpinsBeforeYield) pause();
      else std::this_thread::yield();
    }
  }
}

}  // namespace ps
