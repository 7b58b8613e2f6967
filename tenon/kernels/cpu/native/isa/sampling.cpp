// A row is weighed in one pass (z and exp(z) of every token, sums of 256 neighbours), which is all that plain
// sampling needs. Top-k and top-p look for the last token they keep among the few with large z, widening the
// search when those are not enough; then another pass drops what comes after it.
#include "sampling.h"

#include "isa/candidates.h"
#include "isa/rows.h"
#include "simd/math.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int kBlock = 256;  // tokens whose weights are summed in float32; sums of blocks are double
constexpr float kInfinity = __builtin_inff();
constexpr int kFew = 256;  // tokens worth sorting
constexpr int kChains = 4;

// Philox4x32-10 (Salmon et al. 2011): 53 bits of its output as a number in [0, 1).
double uniform(uint64_t seed, int32_t choice, int64_t position) {
    uint32_t c[4] = {uint32_t(position), uint32_t(uint64_t(position) >> 32), uint32_t(choice), 0};
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t(c[0]) * 0xD2511F53u, p1 = uint64_t(c[2]) * 0xCD9E8D57u;
        c[0] = uint32_t(p1 >> 32) ^ c[1] ^ k0;
        c[1] = uint32_t(p1);
        c[2] = uint32_t(p0 >> 32) ^ c[3] ^ k1;
        c[3] = uint32_t(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (double(c[0] >> 5) * 67108864.0 + double(c[1] >> 6)) * 0x1p-53;
}

// ln x for x >= 1: x = 2^n m with m around 1, ln m = 2 atanh((m - 1) / (m + 1)) by its series.
double natural_log(double x) {
    uint64_t bits;
    __builtin_memcpy(&bits, &x, 8);
    int n = int(bits >> 52 & 0x7ff) - 1023;
    bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    __builtin_memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        n += 1;
    }
    const double s = (m - 1) / (m + 1), s2 = s * s;
    double series = 0;
    for (int power = 21; power > 0; power -= 2) series = series * s2 + 1.0 / power;
    return n * 0.6931471805599453 + 2 * s * series;
}

// The largest logit and its lowest id; not `sound` with a NaN, with +inf, or with nothing above -inf.
struct Peak {
    float value;
    int32_t id;
    bool sound;
};

// The largest of the vectors it has seen, by lane, and where the vector began; of equal ones the first.
struct RunningPeak {
    F32x16 top = splat(-kInfinity), nan = zero_f32();
    I32x16 where = splat_i32(0);

    TENON_INLINE_MEMBER void see(F32x16 x, int64_t i) {
        nan = select(eq(x, x), nan, splat(1));
        const Mask16 larger = lt(top, x);
        top = select(larger, x, top);
        where = select(larger, splat_i32(int32_t(i)), where);
    }

    void best(Peak* peak) const {
        float values[16];
        int32_t starts[16];
        store(values, top);
        store_i32(starts, where);
        for (int lane = 0; lane < 16; ++lane) {
            const int32_t id = starts[lane] + lane;
            if (values[lane] > peak->value || (values[lane] == peak->value && id < peak->id)) {
                peak->value = values[lane];
                peak->id = id;
            }
        }
    }
};

Peak find_peak(const float* logits, int vocab) {
    RunningPeak part[kChains];  // side by side: one alone would wait for its own last result
    int64_t i = 0;
    for (; i + 16 * kChains <= vocab; i += 16 * kChains)
        unroll<kChains>([&](auto c) TENON_LAMBDA {
            const int64_t at = i + 16 * c.value;
            part[c.value].see(load(logits + at), at);
        });
    for (; i < vocab; i += 16) {
        const int n = vocab - i < 16 ? int(vocab - i) : 16;
        const F32x16 x = load_part(logits + i, n);
        part[0].see(n < 16 ? select(first_n(n), x, splat(-kInfinity)) : x, i);
    }
    Peak peak{-kInfinity, 0, false};
    F32x16 nan = zero_f32();
    for (const RunningPeak& one : part) {
        one.best(&peak);
        nan = max(nan, one.nan);
    }
    peak.sound = peak.value > -kInfinity && peak.value < kInfinity && reduce_max(nan) == 0;
    return peak;
}

int32_t sum_lanes(I32x16 x) {
    int32_t lanes[16], sum = 0;
    store_i32(lanes, x);
    for (const int32_t lane : lanes) sum += lane;
    return sum;
}

// How many tokens, and the sum of their weights.
struct Share {
    int count;
    double mass;
};

// A row's z, exp(z) and sums, in a thread's scratch memory.
class Weights {
  public:
    static size_t bytes(int vocab) {
        const size_t padded = size_t(num_blocks(vocab)) * kBlock;
        return num_blocks(vocab) * sizeof(double) + padded * (2 * sizeof(float) + sizeof(Candidate));
    }

    Weights(void* scratch, int vocab) : vocab_(vocab), blocks_(num_blocks(vocab)) {
        sums_ = static_cast<double*>(scratch);
        z_ = reinterpret_cast<float*>(sums_ + blocks_);
        weight_ = z_ + blocks_ * kBlock;
        candidates_ = reinterpret_cast<Candidate*>(weight_ + blocks_ * kBlock);
    }

    // z = (logit - largest) / temperature
    void weigh(const float* logits, float largest, float temperature) {
        const F32x16 m = splat(largest), t = splat(temperature);
        each_vector([&](int i, int n) {
            F32x16 z = (load_part(logits + i, n) - m) / t;
            if (n < 16) z = select(first_n(n), z, splat(-kInfinity));
            store(z_ + i, z);
            return exp(z);
        });
    }

    // Drops what comes after `last`, and what weighs less than `least`.
    void restrict(const Candidate& last, float least) {
        const F32x16 z_last = splat(last.z), floor = splat(least);
        const I32x16 after = splat_i32(last.id + 1);
        each_vector([&](int i, int) {
            const F32x16 z = load(z_ + i), w = load(weight_ + i);
            const F32x16 tied = select_lower(i, after, eq(z, z_last), w);
            return select(le(floor, w), select(lt(z_last, z), w, tied), zero_f32());
        });
    }

    double total() const {
        double sum = 0;
        for (int b = 0; b < blocks_; ++b) sum += sums_[b];
        return sum;
    }

    // The token whose interval of the running sum of weights holds u * total.
    int32_t draw(double u) const {
        const double target = u * total();
        double sum = 0;
        int block = 0;
        while (block < blocks_ - 1 && sum + sums_[block] <= target) sum += sums_[block++];
        // Rounding may put the target past the end of the last block: then it is the last token with a
        // weight.
        while (block > 0 && sums_[block] == 0) --block;
        int32_t id = -1;
        for (int i = block * kBlock; i < (block + 1) * kBlock; ++i) {
            if (weight_[i] == 0) continue;
            id = i;
            sum += weight_[i];
            if (sum > target) break;
        }
        return id;
    }

    // The last token, in order, of the first so many that reaches(their Share) is true; one after all tokens
    // if that is never so. `pick(candidates, n, share of what comes before them)` says how many of n it
    // takes.
    template <class Reaches, class Pick>
    Candidate last_kept(const Reaches& reaches, const Pick& pick) {
        const int count = narrow(reaches);
        const int picked = count ? pick(candidates_, count, before_) : 0;
        Candidate last = picked ? candidates_[0] : behind_all();
        for (int i = 1; i < picked; ++i)
            if (before(last, candidates_[i])) last = candidates_[i];
        return last;
    }

    // The first `count` tokens in order, sorted by their values in `logits`: ones that differ may have the
    // same z.
    const Candidate* first(int count, const float* logits) {
        const auto reaches = [count](const Share& share) { return share.count >= count; };
        level_reaching(reaches);
        const int found = gather(low_, 1);
        for (int i = 0; i < found; ++i) candidates_[i].z = logits[candidates_[i].id];
        select_first(candidates_, found, count);
        sort_candidates(candidates_, 0, count);
        return candidates_;
    }

    Candidate behind_all() const { return {-kInfinity, 0, vocab_}; }

  private:
    int vocab_, blocks_;
    double* sums_;
    float* z_;
    float* weight_;
    Candidate* candidates_;
    // The last token kept has low <= z < high; `before_` is the share of those with z >= high.
    float low_, high_;
    Share before_;

    static int num_blocks(int vocab) { return (vocab + kBlock - 1) / kBlock; }

    // Sets weights to f(index, number of tokens in the vector) and sums them by blocks.
    template <class F>
    void each_vector(const F& f) {
        for (int b = 0; b < blocks_; ++b) {
            F32x16 sum = zero_f32();
            for (int i = b * kBlock; i < (b + 1) * kBlock; i += 16) {
                const int left = vocab_ - i;
                const F32x16 w = f(i, left >= 16 ? 16 : left > 0 ? left : 0);
                store(weight_ + i, w);
                sum = sum + w;
            }
            sums_[b] = reduce_add(sum);
        }
    }

    // w where `tied` and the id is below `after`, else 0.
    static F32x16 select_lower(int first, I32x16 after, Mask16 tied, F32x16 w) {
        static constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const I32x16 id = splat_i32(first) + load_i32(kLanes);
        return select(tied, select(lt(id, after), w, zero_f32()), zero_f32());
    }

    Share share_above(float level) const {
        F32x16 mass = zero_f32();
        I32x16 count = splat_i32(0);
        for (int i = 0; i < blocks_ * kBlock; i += 16) {
            const Mask16 above = le(splat(level), load(z_ + i));
            mass = mass + select(above, load(weight_ + i), zero_f32());
            count = count + select(above, splat_i32(1), splat_i32(0));
        }
        return {sum_lanes(count), reduce_add(mass)};
    }

    // Sets low to a value, as a rule not far down, such that the tokens from there on are enough.
    template <class Reaches>
    void level_reaching(const Reaches& reaches) {
        low_ = -4;
        high_ = 1;  // above every z
        before_ = {0, 0};
        for (Share share = share_above(low_); !reaches(share); share = share_above(low_)) {
            high_ = low_;
            before_ = share;
            low_ *= 4;
            if (low_ < -1e7f) {
                low_ = -kInfinity;
                return;
            }
        }
    }

    // Puts the few tokens that may be the last one kept into candidates_; returns how many.
    template <class Reaches>
    int narrow(const Reaches& reaches) {
        level_reaching(reaches);
        for (int pass = 0; pass < 12 && low_ > -kInfinity; ++pass) {
            const float middle = 0.5f * (low_ + high_);
            const Share share = share_above(middle);
            if (reaches(share)) {
                low_ = middle;
                if (share.count - before_.count <= kFew) break;
            } else {
                high_ = middle;
                before_ = share;
            }
        }
        return gather(low_, high_);
    }

    int gather(float low, float high) {
        int count = 0;
        const F32x16 bound = splat(low);
        for (int i = 0; i < vocab_; i += 16) {
            if (!any(le(bound, load(z_ + i)))) continue;
            const int end = i + 16 < vocab_ ? i + 16 : vocab_;
            for (int id = i; id < end; ++id)
                if (z_[id] >= low && z_[id] < high) candidates_[count++] = {z_[id], weight_[id], id};
        }
        return count;
    }
};

// Drops all but the first `top_k` tokens.
void keep_count(Weights& weights, int top_k) {
    const Candidate last = weights.last_kept([&](const Share& share) { return share.count >= top_k; },
                                             [&](Candidate* c, int n, const Share& before) {
                                                 const int count = top_k - before.count;
                                                 select_first(c, n, count);
                                                 return count;
                                             });
    weights.restrict(last, 0);
}

// The last of the fewest tokens that make up the share `top_p`.
Candidate last_of_mass(Weights& weights, float top_p) {
    const double need = top_p * weights.total();
    return weights.last_kept(
        [&](const Share& share) { return share.mass >= need; },
        [&](Candidate* c, int n, const Share& before) { return select_mass(c, n, before.mass, need); });
}

int32_t sample_row(const SampleArgs& args, int64_t row, void* scratch) {
    const float* logits = args.logits_SV + row * args.stride;
    const Peak peak = find_peak(logits, args.vocab);
    if (!peak.sound) return -1;
    const float temperature = args.temperature_S[row];
    if (temperature == 0) return peak.id;

    Weights weights(scratch, args.vocab);
    weights.weigh(logits, peak.value, temperature);
    const int top_k = args.top_k_S[row];
    const float top_p = args.top_p_S[row], min_p = args.min_p_S[row];
    if (top_k > 0 && top_k < args.vocab) keep_count(weights, top_k);
    if (top_p < 1 || min_p > 0)
        weights.restrict(top_p < 1 ? last_of_mass(weights, top_p) : weights.behind_all(), min_p);
    return weights.draw(uniform(args.seed_S[row], args.choice_S[row], args.position_S[row]));
}

void sample(const SampleArgs& args, const StepDims& dims, Pool& pool) {
    pool.parallel_for(args.rows.at(dims), [&](int64_t begin, int64_t end, int thread) {
        void* scratch = pool.scratch(thread, Weights::bytes(args.vocab));
        for (int64_t row = begin; row < end; ++row) args.ids_S[row] = sample_row(args, row, scratch);
    });
}

int32_t count_larger(const float* logits, int vocab, float than) {
    I32x16 count = splat_i32(0);
    const F32x16 bound = splat(than);
    for_vectors(vocab, [&](int64_t i, int n) {
        F32x16 x = load_part(logits + i, n);
        if (n < 16) x = select(first_n(n), x, splat(-kInfinity));
        count = count + select(lt(bound, x), splat_i32(1), splat_i32(0));
    });
    return sum_lanes(count);
}

void logprobs_row(const LogprobsArgs& args, int64_t row, void* scratch) {
    const float* logits = args.logits_SV + row * args.stride;
    const Peak peak = find_peak(logits, args.vocab);
    Weights weights(scratch, args.vocab);
    weights.weigh(logits, peak.value, 1);
    const double log_sum = double(peak.value) + natural_log(weights.total());
    const int32_t id = args.ids_S[row];
    const bool known = id >= 0 && id < args.vocab;
    args.logprob_S[row] = known ? float(double(logits[id]) - log_sum) : __builtin_nanf("");
    args.rank_S[row] = known ? 1 + count_larger(logits, args.vocab, logits[id]) : 0;
    if (args.top_n == 0) return;
    const Candidate* top = weights.first(args.top_n, logits);
    for (int i = 0; i < args.top_n; ++i) {
        args.top_ids_Sn[row * args.top_n + i] = top[i].id;
        args.top_logprobs_Sn[row * args.top_n + i] = float(double(logits[top[i].id]) - log_sum);
    }
}

void logprobs(const LogprobsArgs& args, const StepDims& dims, Pool& pool) {
    pool.parallel_for(args.rows.at(dims), [&](int64_t begin, int64_t end, int thread) {
        void* scratch = pool.scratch(thread, Weights::bytes(args.vocab));
        for (int64_t row = begin; row < end; ++row) logprobs_row(args, row, scratch);
    });
}

// Most words of a mask are all ones or all zeros.
void mask_row(float* logits, int vocab, const uint32_t* mask) {
    for (int begin = 0; begin < vocab; begin += 32) {
        const uint32_t word = mask[begin / 32];
        const int count = vocab - begin < 32 ? vocab - begin : 32;
        if (word == ~uint32_t{0}) continue;
        for (int i = 0; i < count; ++i) logits[begin + i] = word >> i & 1 ? logits[begin + i] : -kInfinity;
    }
}

void mask_logits(const MaskLogitsArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t words = (args.vocab + 31) / 32;
    pool.parallel_for(args.rows.at(dims), [&](int64_t begin, int64_t end, int) {
        for (int64_t m = begin; m < end; ++m)
            mask_row(args.logits_SV + args.rows_M[m] * args.stride, args.vocab, args.mask_MW + m * words);
    });
}

}  // namespace

extern const SamplingKernels sampling_kernels{sample, logprobs, mask_logits};

}  // namespace tenon::TENON_ISA
