// Partial sorting of tokens: by falling value, equal values by rising id. Plain scalar code, and no two
// tokens compare equal, so the result and every intermediate order depend on the data only.
#pragma once

#include <cstdint>

namespace tenon::TENON_ISA {

struct Candidate {
    float z, weight;
    int32_t id;
};

static inline bool before(const Candidate& a, const Candidate& b) {
    return a.z > b.z || (a.z == b.z && a.id < b.id);
}

// Reorders c[begin, end) around one of its members; returns where that one is, behind all that come before
// it.
static inline int partition(Candidate* c, int begin, int end) {
    const auto swap = [c](int i, int j) {
        const Candidate kept = c[i];
        c[i] = c[j];
        c[j] = kept;
    };
    swap(begin + (end - begin) / 2, end - 1);
    int place = begin;
    for (int i = begin; i < end - 1; ++i)
        if (before(c[i], c[end - 1])) swap(place++, i);
    swap(place, end - 1);
    return place;
}

// Moves the first `count` of n, in order, to the front (in any order among themselves).
static inline void select_first(Candidate* c, int n, int count) {
    for (int begin = 0, end = n; end - begin > 1;) {
        const int place = partition(c, begin, end);
        if (place >= count)
            end = place;
        else
            begin = place + 1;
    }
}

// Moves to the front the fewest of n, first in order, whose weights together with `reached` come to `need`;
// returns how many: at least one, and all n if they never do.
static inline int select_mass(Candidate* c, int n, double reached, double need) {
    int begin = 0, end = n;  // the first `begin` are needed, with sum `reached`; those from `end` on are not
    while (begin < end) {
        const int place = partition(c, begin, end);
        double sum = reached;
        for (int i = begin; i < place; ++i) sum += c[i].weight;
        if (sum >= need && place > begin) {
            end = place;
        } else {
            reached = sum + c[place].weight;
            begin = place + 1;
            if (reached >= need) end = begin;
        }
    }
    return begin;
}

// Sorts n in order.
static inline void sort_candidates(Candidate* c, int begin, int end) {
    while (end - begin > 1) {
        const int place = partition(c, begin, end);
        sort_candidates(c, begin, place);
        begin = place + 1;
    }
}

}  // namespace tenon::TENON_ISA
