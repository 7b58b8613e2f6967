#include "base/plan.h"

#include <atomic>
#include <chrono>
#include <stdexcept>

namespace tenon {
namespace {

thread_local Recorder* t_recorder = nullptr;
std::atomic<uint64_t*> g_counter{nullptr};

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void count_ops(uint64_t* counter) {
    g_counter.store(counter);
}

void op_done() {
    if (uint64_t* counter = g_counter.load(std::memory_order_relaxed))
        std::atomic_ref<uint64_t>(*counter).fetch_add(1, std::memory_order_relaxed);
}

void Plan::run(const StepDims& dims) const {
    Pool& workers = pool();
    Pool::Session session(workers);
    if (profiling_) return run_profiled(dims, workers);
    for (const Step& step : steps_) {
        step.thunk(step.kernel, step.args.get(), dims, workers);
        op_done();
    }
}

void Plan::run_profiled(const StepDims& dims, Pool& workers) const {
    double start = now();
    for (size_t i = 0; i < steps_.size(); ++i) {
        const Step& step = steps_[i];
        step.thunk(step.kernel, step.args.get(), dims, workers);
        op_done();
        const double end = now();
        const Work work = step.work ? step.work(step.args.get(), dims) : Work{};
        OpProfile& entry = profile_[i];
        entry.calls += 1;
        entry.seconds += end - start;
        entry.work.bytes += work.bytes;
        entry.work.flops += work.flops;
        start = now();
    }
}

void Plan::append(const char* op, void (*kernel)(), Thunk thunk, WorkOf work, const void* args, size_t size) {
    auto copy = std::make_unique<std::byte[]>(size);
    std::memcpy(copy.get(), args, size);
    steps_.push_back({op, kernel, thunk, work, std::move(copy)});
}

std::vector<std::string> Plan::ops() const {
    std::vector<std::string> names;
    for (const Step& step : steps_) names.push_back(step.op);
    return names;
}

void Plan::set_profiling(bool on) {
    profiling_ = on;
    if (!on) return;
    profile_.clear();
    for (const Step& step : steps_) profile_.push_back({step.op, 0, 0, {}});
}

std::vector<OpProfile> Plan::profile() const {
    std::vector<OpProfile> kinds;
    for (const OpProfile& step : profile_) {
        OpProfile* kind = nullptr;
        for (OpProfile& known : kinds)
            if (known.op == step.op) kind = &known;
        if (!kind) kind = &kinds.emplace_back(OpProfile{step.op, 0, 0, {}});
        kind->calls += step.calls;
        kind->seconds += step.seconds;
        kind->work.bytes += step.work.bytes;
        kind->work.flops += step.work.flops;
    }
    return kinds;
}

Recorder::Recorder(Plan& plan, StepDims dims, StepDims run) : plan_(plan), dims_(dims), run_(run) {
    if (t_recorder) throw std::invalid_argument("a plan is already being recorded on this thread");
    if (dims.tokens == dims.requests || dims.tokens == dims.sampled || dims.requests == dims.sampled)
        throw std::invalid_argument("tokens, requests and sampled must differ while a plan is recorded");
    t_recorder = this;
}

Recorder::~Recorder() {
    stop();
}

void Recorder::stop() {
    if (t_recorder == this) t_recorder = nullptr;
}

Recorder* Recorder::active() {
    return t_recorder;
}

Count count(int64_t rows) {
    Count result{int32_t(rows), Count::kFixed};
    if (const Recorder* recorder = t_recorder) {
        if (rows == recorder->dims().tokens) result.kind = Count::kTokens;
        if (rows == recorder->dims().requests) result.kind = Count::kRequests;
        if (rows == recorder->dims().sampled) result.kind = Count::kSampled;
    }
    return result;
}

}  // namespace tenon
