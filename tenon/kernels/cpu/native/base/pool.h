// The thread pool: one per process, pinned, idle at no cost.
//
// A parallel region splits a range of tasks into one contiguous part per thread; the caller works too, and
// does the parts of workers that have not started when it is done with its own: other processes may hold
// their cores. Workers spin for a moment after a region, so that the next one starts within a microsecond,
// and then sleep.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tenon {

class Pool {
  public:
    // Tasks [begin, end) of a region, on thread number `thread` (0: the caller).
    using Task = void (*)(void* context, int64_t begin, int64_t end, int thread);

    // Holds the pool for the calling thread, and puts that thread into the arithmetic mode of kernels
    // (denormals are zero, on input and output). Every region runs within one; other callers wait meanwhile.
    class Session {
      public:
        explicit Session(Pool& pool);
        ~Session();
        Session(const Session&) = delete;
        Session& operator=(const Session&) = delete;

      private:
        Pool& pool_;
        uint64_t mode_;
    };

    int num_threads() const;
    // Cores that the process may use: the upper limit of set_num_threads, and its default.
    int max_threads() const;
    int default_threads() const;
    // Throws std::invalid_argument outside 1..max_threads().
    void set_num_threads(int count);

    // Pins the calling thread to the core that the workers leave free. For the thread that drives an engine
    // in a process of its own: threads that it starts later inherit the mask.
    void pin_caller();

    // f(begin, end, thread) on parts of [0, num_tasks). Returns when all are done; rethrows the first
    // exception. Inside a region it runs on the calling thread alone.
    template <class F>
    void parallel_for(int64_t num_tasks, F f) {
        run(
            num_tasks,
            [](void* context, int64_t begin, int64_t end, int thread) {
                (*static_cast<F*>(context))(begin, end, thread);
            },
            &f);
    }

    // At least `bytes` of memory, 64-byte aligned, contents unspecified, kept until a larger size is asked
    // for. Of one thread, asked for by that thread; or of all, asked for outside a region.
    void* scratch(int thread, size_t bytes);
    void* shared_scratch(size_t bytes);

  private:
    friend Pool& pool();
    Pool();
    void start_anew();  // forgets threads and locks of another process
    void run(int64_t num_tasks, Task task, void* context);

    struct State;
    State* state_;
};

// The process's pool. After a fork the child has a fresh one.
Pool& pool();

}  // namespace tenon
