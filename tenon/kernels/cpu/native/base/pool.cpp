#include "base/pool.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/topology.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tenon {
namespace {

// How long a thread spins before it sleeps: longer than the pause between two ops of a plan, and than the
// Python between two steps of decoding; short enough not to show when idle.
constexpr auto kSpin = std::chrono::microseconds(50);

#if defined(__x86_64__)
constexpr uint64_t kFlushDenormals = 0x8040;  // MXCSR: FTZ, DAZ
uint64_t arithmetic_mode() {
    return _mm_getcsr();
}
void set_arithmetic_mode(uint64_t mode) {
    _mm_setcsr(uint32_t(mode));
}
void relax() {
    _mm_pause();
}
#elif defined(__aarch64__)
constexpr uint64_t kFlushDenormals = 1 << 24;  // FPCR: FZ, inputs and outputs
uint64_t arithmetic_mode() {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void set_arithmetic_mode(uint64_t mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
void relax() {
    __asm__ volatile("yield");
}
#else
constexpr uint64_t kFlushDenormals = 0;
uint64_t arithmetic_mode() {
    return 0;
}
void set_arithmetic_mode(uint64_t) {}
void relax() {
    std::this_thread::yield();
}
#endif

// A word that one thread changes and another waits for: spinning first, then asleep in the kernel.
class Signal {
  public:
    int get() const { return word_.load(std::memory_order_acquire); }

    void set(int value) {
        word_.store(value, std::memory_order_seq_cst);
        wake();
    }

    // Counts down; wakes the waiter at zero.
    void decrement() {
        if (word_.fetch_sub(1, std::memory_order_seq_cst) == 1) wake();
    }

    void reset(int value) { word_.store(value, std::memory_order_relaxed); }

    template <class Predicate>
    void wait(Predicate done) {
        const auto deadline = std::chrono::steady_clock::now() + kSpin;
        do {
            for (int i = 0; i < 16; ++i) {
                if (done(get())) return;
                relax();
            }
        } while (std::chrono::steady_clock::now() < deadline);
        for (int value = get(); !done(value); value = get()) sleep_while(value);
    }

  private:
#if defined(__linux__)
    void wake() {
        if (sleeping_.load(std::memory_order_seq_cst)) futex(FUTEX_WAKE_PRIVATE, 1);
    }
    void sleep_while(int value) {
        sleeping_.store(true, std::memory_order_seq_cst);
        futex(FUTEX_WAIT_PRIVATE, value);  // returns at once if the word has changed meanwhile
        sleeping_.store(false, std::memory_order_relaxed);
    }
    void futex(int operation, int value) {
        syscall(SYS_futex, reinterpret_cast<int*>(&word_), operation, value, nullptr, nullptr, 0);
    }
    std::atomic<bool> sleeping_{false};
#else
    void wake() { word_.notify_one(); }
    void sleep_while(int value) { word_.wait(value); }
#endif
    std::atomic<int> word_{0};
};

struct alignas(64) Buffer {
    void* data = nullptr;
    size_t size = 0;

    void* at_least(size_t bytes) {
        if (bytes > size) {
            std::free(data);
            size = 0;
            const size_t rounded = (bytes + 4095) / 4096 * 4096;
            data = std::aligned_alloc(4096, rounded);
            if (!data) throw std::bad_alloc();
            size = rounded;
        }
        return data;
    }
    ~Buffer() { std::free(data); }
};

thread_local int t_thread = -1;  // number within the region that this thread works in; -1: none

#if defined(__linux__)
using ThreadHandle = pthread_t;
ThreadHandle this_thread() {
    return pthread_self();
}
void pin(ThreadHandle thread, int cpu) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
    pthread_setaffinity_np(thread, sizeof mask, &mask);  // best effort: the mask may have changed since
}
#else
using ThreadHandle = std::thread::native_handle_type;
ThreadHandle this_thread() {
    return {};
}
void pin(ThreadHandle, int) {}
#endif

}  // namespace

struct Pool::State {
    // A region is its number, and in the low bits how many parts it has.
    static constexpr int kPartBits = 16;
    static int parts_of(uint64_t region) { return int(region & ((1 << kPartBits) - 1)); }

    struct alignas(64) Worker {
        Signal epoch;  // changes when there is work, or it is time to stop
        std::thread thread;
        // The last region whose part for this worker somebody has taken. Numbers of regions only grow, so who
        // comes late, when all of a region has been taken and it may be over, takes nothing.
        std::atomic<uint64_t> taken{0};

        bool take(int part, uint64_t region) {
            uint64_t last = taken.load(std::memory_order_relaxed);
            return part < parts_of(region) && last < region &&
                   taken.compare_exchange_strong(last, region, std::memory_order_acquire);
        }
    };

    Topology topology = read_topology();
    std::mutex mutex;  // held by the Session
    int num_threads = 1;
    std::vector<std::unique_ptr<Worker>> workers;  // num_threads - 1, started by the first region
    std::vector<std::unique_ptr<Buffer>> scratch;  // per thread
    Buffer shared;

    // The region in progress. Whoever has taken a part of it may read the rest.
    std::atomic<uint64_t> region{0};
    Task task = nullptr;
    void* context = nullptr;
    int64_t num_tasks = 0;
    int parts = 0;
    Signal pending;
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    bool stop = false;

    // A quota below the number of cores means that others share them: let the system place the threads.
    bool pins() const { return topology.quota == 0 || topology.quota >= double(topology.cpus.size()); }

    int default_threads() const {
        int count = topology.physical_cores;
        if (topology.quota > 0 && topology.quota < count) count = int(topology.quota);
        return count < 1 ? 1 : count;
    }

    void work(int part, int thread) {
        t_thread = thread;
        try {
            const int64_t begin = num_tasks * part / parts, end = num_tasks * (part + 1) / parts;
            if (begin < end) task(context, begin, end, thread);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
        t_thread = -1;
    }

    void serve(Worker& self, int thread) {
        set_arithmetic_mode(arithmetic_mode() | kFlushDenormals);
        for (int seen = 0;;) {
            self.epoch.wait([&](int epoch) { return epoch != seen; });
            seen = self.epoch.get();
            if (stop) return;
            if (!self.take(thread, region.load(std::memory_order_acquire))) continue;
            work(thread, thread);
            pending.decrement();
        }
    }

    // The caller does parts whose workers have not come yet, because something else runs on their cores.
    void do_parts_left() {
        for (int part = 1; part < parts && pending.get() > 0; ++part) {
            if (!workers[part - 1]->take(part, region.load(std::memory_order_relaxed))) continue;
            work(part, 0);
            pending.decrement();
        }
    }

    void start_workers() {
#if defined(__linux__)
        sigset_t all, before;  // signals are the main thread's business
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
        while (int(workers.size()) < num_threads - 1) {
            workers.push_back(std::make_unique<Worker>());
            Worker& worker = *workers.back();
            const int thread = int(workers.size());
            worker.thread = std::thread([this, &worker, thread] { serve(worker, thread); });
            if (pins()) pin(worker.thread.native_handle(), topology.cpus[thread]);
        }
#if defined(__linux__)
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
    }

    void stop_workers() {
        stop = true;
        for (auto& worker : workers) worker->epoch.set(worker->epoch.get() + 1);
        for (auto& worker : workers) worker->thread.join();
        workers.clear();
        stop = false;
    }

    void resize(int count) {
        num_threads = count;
        while (int(scratch.size()) < count) scratch.push_back(std::make_unique<Buffer>());
    }

    State() { resize(default_threads()); }
};

Pool::Pool() : state_(new State) {
    const char* forced = std::getenv("TENON_NUM_THREADS");
    if (forced && *forced) set_num_threads(std::atoi(forced));
}

Pool::Session::Session(Pool& pool) : pool_(pool) {
    pool_.state_->mutex.lock();
    mode_ = arithmetic_mode();
    set_arithmetic_mode(mode_ | kFlushDenormals);
}

Pool::Session::~Session() {
    set_arithmetic_mode(mode_);
    pool_.state_->mutex.unlock();
}

int Pool::num_threads() const {
    return state_->num_threads;
}
int Pool::max_threads() const {
    return int(state_->topology.cpus.size());
}
int Pool::default_threads() const {
    return state_->default_threads();
}

void Pool::pin_caller() {
    // Where cores are left over, the system finds one that is idle: small engines shall not share the first.
    const bool all_cores = state_->num_threads >= state_->default_threads();
    if (state_->pins() && all_cores) pin(this_thread(), state_->topology.cpus[0]);
}

void Pool::set_num_threads(int count) {
    if (count < 1 || count > max_threads())
        throw std::invalid_argument("number of threads must be between 1 and " +
                                    std::to_string(max_threads()) +
                                    " (the cores this process may use), not " + std::to_string(count));
    std::lock_guard lock(state_->mutex);
    if (count == state_->num_threads) return;
    state_->stop_workers();
    state_->resize(count);
}

void Pool::run(int64_t num_tasks, Task task, void* context) {
    if (num_tasks <= 0) return;
    State& s = *state_;
    if (t_thread >= 0) return task(context, 0, num_tasks, t_thread);
    const int parts = int(num_tasks < s.num_threads ? num_tasks : s.num_threads);
    if (int(s.workers.size()) < s.num_threads - 1 && parts > 1) s.start_workers();
    s.task = task;
    s.context = context;
    s.num_tasks = num_tasks;
    s.parts = parts;
    s.pending.reset(parts - 1);
    const uint64_t number = (s.region.load(std::memory_order_relaxed) >> State::kPartBits) + 1;
    s.region.store(number << State::kPartBits | uint64_t(parts), std::memory_order_release);
    for (int i = 0; i < parts - 1; ++i) s.workers[i]->epoch.set(s.workers[i]->epoch.get() + 1);
    s.work(0, 0);
    if (parts > 1) {
        s.do_parts_left();
        s.pending.wait([](int left) { return left == 0; });
    }
    if (s.failed.exchange(false)) std::rethrow_exception(std::exchange(s.error, nullptr));
}

void* Pool::scratch(int thread, size_t bytes) {
    return state_->scratch[thread]->at_least(bytes);
}
void* Pool::shared_scratch(size_t bytes) {
    return state_->shared.at_least(bytes);
}

void Pool::start_anew() {
    const int threads = state_->num_threads;
    state_ = new State;
    state_->resize(threads);
}

Pool& pool() {
    // Never destroyed: workers may outlive static destruction. A forked child has no workers: its pool starts
    // anew.
    static Pool* instance = new Pool;
#if defined(__linux__)
    static const int registered = pthread_atfork(nullptr, nullptr, [] { instance->start_anew(); });
    (void)registered;
#endif
    return *instance;
}

}  // namespace tenon
