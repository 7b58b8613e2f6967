// Which cores this process may use, and how much of them.
#pragma once

#include <vector>

namespace tenon {

struct Topology {
    std::vector<int> cpus;  // of the affinity mask: one per physical core first, then their hyperthreads
    int physical_cores;     // how many of `cpus` are the first of their core
    double quota;           // cgroup limit in cores; 0: none
};

Topology read_topology();

}  // namespace tenon
