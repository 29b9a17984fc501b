/* Threads that share the tasks of one operation at a time. */
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace ps {

/* The caller works too, as thread 0. Between operations the workers spin for a short while, so that the many small operations
 * of a decode step start without a system call, and then sleep. */
class ThreadPool {
 public:
  /* Throws std::system_error if the system refuses to start them. */
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int size() const;

  /* Runs task(index, thread) for every index in [0, count), in any order. Tasks must not throw. */
  template <typename Task>
  void parallel_for(int64_t count, const Task &task) {
    run(count, [](const void *context, int64_t index, int thread) { (*static_cast<const Task *>(context))(index, thread); }, &task);
  }

  /* Makes every thread's scratch at least this large; its contents are lost. */
  void reserve_scratch(int64_t bytes);
  /* 64-byte aligned. */
  void *scratch(int thread);
  /* Memory that all threads share, 64-byte aligned, at least this large; its contents are lost. */
  void *shared_scratch(int64_t bytes);

 private:
  using Function = void (*)(const void *context, int64_t index, int thread);
  void run(int64_t count, Function function, const void *context);
  bool run_one(int thread);
  void work(int thread);
  void stop();

  std::vector<std::thread> workers_;
  std::vector<std::vector<char>> scratch_;
  int64_t scratch_bytes_ = 0;
  std::vector<char> shared_;
  Function function_ = nullptr;
  const void *context_ = nullptr;
  /* Tasks handed out, tasks in all, and a turn counter, in one word: a thread that wakes late can only ever claim a task of the
   * operation that is running now. */
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace ps
