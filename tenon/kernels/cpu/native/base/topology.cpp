#include "base/topology.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace tenon {
namespace {

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::vector<int> allowed_cpus() {
    std::vector<int> cpus;
#if defined(__linux__)
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
#endif
    if (cpus.empty())
        for (int cpu = 0; cpu < std::max(1, int(std::thread::hardware_concurrency())); ++cpu)
            cpus.push_back(cpu);
    return cpus;
}

// "max 100000" or "150000 100000": microseconds of CPU time per period.
double parse_cpu_max(const std::string& line) {
    const size_t space = line.find(' ');
    if (line.empty() || line[0] == 'm' || space == std::string::npos) return 0;
    try {
        return std::stod(line) / std::stod(line.substr(space));
    } catch (const std::exception&) {
        return 0;
    }
}

void tighten(double& quota, double limit) {
    if (limit > 0 && (quota == 0 || limit < quota)) quota = limit;
}

// The tightest limit of this process's control group and its ancestors (version 2), or version 1's.
double cgroup_quota() {
    double quota = 0;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        if (line.rfind("0::", 0) != 0) continue;
        for (std::string path = line.substr(3);; path = path.substr(0, path.rfind('/'))) {
            tighten(quota, parse_cpu_max(first_line("/sys/fs/cgroup" + path + "/cpu.max")));
            if (path.empty() || path == "/") break;
        }
    }
    tighten(quota, parse_cpu_max(first_line("/sys/fs/cgroup/cpu.max")));
    const std::string v1 = "/sys/fs/cgroup/cpu/cpu.cfs_";
    const std::string limit = first_line(v1 + "quota_us"), period = first_line(v1 + "period_us");
    if (!limit.empty() && limit[0] != '-') tighten(quota, parse_cpu_max(limit + " " + period));
    return quota;
}

}  // namespace

Topology read_topology() {
    Topology topology{{}, 0, cgroup_quota()};
    std::vector<int> siblings;
    std::set<std::string> seen;
    for (int cpu : allowed_cpus()) {
        const std::string core = first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                            "/topology/thread_siblings_list");
        if (core.empty() || seen.insert(core).second)
            topology.cpus.push_back(cpu);
        else
            siblings.push_back(cpu);
    }
    topology.physical_cores = int(topology.cpus.size());
    topology.cpus.insert(topology.cpus.end(), siblings.begin(), siblings.end());
    return topology;
}

}  // namespace tenon
