// cpu.cpp: cores and processors available to the process.
#include "cpu.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace rim {

namespace {

int logical_cores() {
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

#if defined(__linux__)

// First line of a file, "" if it cannot be read.
std::string first_line(const std::string & path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// The group of this process under one controller ("" for version 2), "/" if unknown.
std::string control_group(const std::string & controller) {
    std::ifstream file("/proc/self/cgroup");
    std::string line;
    while (std::getline(file, line)) {  // id:controllers:path
        const size_t first = line.find(':');
        const size_t second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) {
            continue;
        }
        std::stringstream names(line.substr(first + 1, second - first - 1));
        std::string name;
        bool found = controller.empty() && second == first + 1;
        while (std::getline(names, name, ',')) {
            found = found || (!controller.empty() && name == controller);
        }
        if (found) {
            return line.substr(second + 1);
        }
    }
    return "/";
}

// Quota of one group directory in CPUs, infinite if none is set.
double quota_of(const std::string & directory, bool version2) {
    double quota = -1;
    double period = 0;
    if (version2) {
        std::stringstream line(first_line(directory + "/cpu.max"));  // "max 100000" or "150000 100000"
        std::string word;
        line >> word >> period;
        if (!word.empty() && word != "max") {
            quota = std::strtod(word.c_str(), nullptr);
        }
    } else {
        quota = std::strtod(first_line(directory + "/cpu.cfs_quota_us").c_str(), nullptr);
        period = std::strtod(first_line(directory + "/cpu.cfs_period_us").c_str(), nullptr);
    }
    return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

// The smallest quota from the group of the process up to the root.
double cpu_quota() {
    double quota = HUGE_VAL;
    for (const bool version2 : {true, false}) {
        const std::string root = version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
        std::string group = control_group(version2 ? "" : "cpu");
        while (!group.empty()) {
            quota = std::min(quota, quota_of(root + group, version2));
            group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
        }
        quota = std::min(quota, quota_of(root, version2));
    }
    return quota;
}

// Processors that the affinity of the process allows, by name; none if it cannot be read.
std::vector<std::string> allowed() {
    std::vector<std::string> names;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &set)) {
                names.push_back(std::to_string(cpu));
            }
        }
    }
    return names;
}

int within_quota(size_t count) {
    return static_cast<int>(std::min(static_cast<double>(count), std::max(1.0, std::ceil(cpu_quota()))));
}

int cores() {
    const std::vector<std::string> names = allowed();
    if (names.empty()) {
        return logical_cores();
    }
    std::set<std::string> distinct;
    for (const std::string & name : names) {
        std::string siblings = first_line("/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
        distinct.insert(siblings.empty() ? name : siblings);
    }
    return within_quota(distinct.size());
}

int logical() {
    const size_t count = allowed().size();
    return count == 0 ? logical_cores() : within_quota(count);
}

#elif defined(__APPLE__)

int cores() {
    for (const char * name : {"hw.perflevel0.physicalcpu", "hw.physicalcpu"}) {
        int value = 0;
        size_t size = sizeof(value);
        if (sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value > 0) {
            return value;
        }
    }
    return logical_cores();
}

int logical() {
    return logical_cores();
}

#else

int cores() {
    return (logical_cores() + 1) / 2;
}

int logical() {
    return logical_cores();
}

#endif

}  // namespace

int physical_cores() {
    return std::max(1, cores());
}

int processors() {
    return std::max(1, logical());
}

}  // namespace rim
