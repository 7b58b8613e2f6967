// Recording native ops, and replaying them without Python.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "base/kernel.h"

namespace tenon {

// Ops are counted up in `counter` from now on, by whichever thread dispatches them; null: nowhere. It is how
// another process sees that a long step goes on.
void count_ops(uint64_t* counter);
void op_done();

// Time and work of all steps of one op kind, over the replays made while profiling.
struct OpProfile {
    std::string op;
    int64_t calls = 0;
    double seconds = 0;
    Work work;
};

// A flat list of native op calls. Pointers in it stay the caller's: whoever keeps a plan keeps the buffers,
// the packed weights and the cache that were used while it was recorded.
class Plan {
  public:
    Plan() = default;
    Plan(const Plan&) = delete;

    using Thunk = void (*)(void (*kernel)(), const void* args, const StepDims&, Pool&);
    using WorkOf = Work (*)(const void* args, const StepDims&);

    // Runs every op for `dims`, holding the pool throughout.
    void run(const StepDims& dims) const;

    void append(const char* op, void (*kernel)(), Thunk thunk, WorkOf work, const void* args, size_t size);
    size_t size() const { return steps_.size(); }
    std::vector<std::string> ops() const;

    // Timing of each op, off at first. Switching it on forgets earlier figures.
    void set_profiling(bool on);
    std::vector<OpProfile> profile() const;

  private:
    struct Step {
        const char* op;  // a string literal
        void (*kernel)();
        Thunk thunk;
        WorkOf work;
        std::unique_ptr<std::byte[]> args;
    };
    void run_profiled(const StepDims& dims, Pool& pool) const;

    std::vector<Step> steps_;
    bool profiling_ = false;
    mutable std::vector<OpProfile> profile_;  // one per step
};

// While one exists on a thread, the ops that this thread dispatches are run and also appended to `plan`. Row
// counts equal to one of `dims` are recorded as that dimension; so its values must differ from each other.
// What is run meanwhile has `run` for them.
class Recorder {
  public:
    Recorder(Plan& plan, StepDims dims, StepDims run);  // throws std::invalid_argument
    ~Recorder();
    Recorder(const Recorder&) = delete;

    void stop();  // records no more; also done by the destructor

    static Recorder* active();  // of the calling thread, or null

    Plan& plan() { return plan_; }
    const StepDims& dims() const { return dims_; }
    const StepDims& run() const { return run_; }

  private:
    Plan& plan_;
    StepDims dims_, run_;
};

// The row count `rows` as an argument of an op: symbolic while recording.
Count count(int64_t rows);

// Runs an op now, on the process's pool; appends it to the plan being recorded, if any. `op` is a string
// literal. Args is a plain struct; if it has `Work work(const StepDims&) const`, profiles show rates. Call it
// with the GIL released.
template <class Args>
void dispatch(const char* op, Kernel<Args> kernel, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>, "a plan keeps a copy of the arguments");
    Recorder* recorder = Recorder::active();
    {
        Pool::Session session(pool());
        kernel(args, recorder ? recorder->run() : StepDims{}, pool());
    }
    op_done();
    if (!recorder) return;
    Plan::WorkOf work = nullptr;
    if constexpr (requires(StepDims dims) { args.work(dims); })
        work = [](const void* a, const StepDims& dims) { return static_cast<const Args*>(a)->work(dims); };
    recorder->plan().append(
        op, reinterpret_cast<void (*)()>(kernel),
        [](void (*k)(), const void* a, const StepDims& dims, Pool& p) {
            reinterpret_cast<Kernel<Args>>(k)(*static_cast<const Args*>(a), dims, p);
        },
        work, &args, sizeof args);
}

}  // namespace tenon
