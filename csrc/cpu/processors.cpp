#include "processors.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>

#include <cerrno>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif
#endif

namespace ps {
namespace {

std::vector<std::string> split(const std::string &text, char separator) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(separator, start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

/* The text of a file, or "" if it does not exist. */
std::string read_text(const std::string &path) {
  std::string text;
  FILE *file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return text;
  char piece[1024];
  for (size_t count; (count = std::fread(piece, 1, sizeof piece, file)) > 0;) text.append(piece, count);
  std::fclose(file);
  return text;
}

std::vector<std::string> read_lines(const std::string &path) { return split(read_text(path), '\n'); }

bool contains(const std::vector<std::string> &list, const std::string &item) { return std::find(list.begin(), list.end(), item) != list.end(); }

/* The mount table writes spaces, tabs, line ends and backslashes as three octal digits. */
std::string unescape(const std::string &text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    const bool escaped = text[i] == '\\' && i + 3 < text.size();
    out += escaped ? static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + text[i + 3] - '0') : text[i];
    if (escaped) i += 3;
  }
  return out;
}

/* A mounted hierarchy of control groups that can limit processor time. */
struct Hierarchy {
  bool version_2;
  std::string root;  /* the group that `mount` shows */
  std::string mount; /* where it is mounted */
};

/* 36 35 98:0 /root /mount rw,noatime shared:1 - cgroup cgroup rw,cpu,cpuacct */
std::vector<Hierarchy> find_hierarchies(const std::string &root) {
  std::vector<Hierarchy> found;
  for (const std::string &line : read_lines(root + "/proc/self/mountinfo")) {
    const std::vector<std::string> fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 6 || fields.end() - dash < 4) continue;
    const bool version_2 = dash[1] == "cgroup2";
    if (version_2 || (dash[1] == "cgroup" && contains(split(dash[3], ','), "cpu"))) {
      found.push_back({version_2, unescape(fields[3]), unescape(fields[4])});
    }
  }
  return found;
}

/* The path of the process's group: "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1. */
std::string find_group(const std::string &root, bool version_2) {
  for (const std::string &line : read_lines(root + "/proc/self/cgroup")) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version_2 ? controllers.empty() : contains(split(controllers, ','), "cpu")) return line.substr(second + 1);
  }
  return "";
}

/* The part of a group's path below the mounted group, "" for the mounted group itself. If the mount shows only the container's part of
 * the tree, the path may be outside it; then the mounted group is the closest readable one. */
std::string path_below(const std::string &group, const std::string &mounted) {
  const std::string prefix = mounted == "/" ? "" : mounted;
  const bool below = group.compare(0, prefix.size(), prefix) == 0 && (group.size() == prefix.size() || group[prefix.size()] == '/');
  if (!below || group.find("/..") != std::string::npos) return "";
  return group.substr(prefix.size());
}

/* The quota of one group in processors, rounded up, or 0. */
int64_t read_quota(const std::string &folder, bool version_2) {
  long long quota = -1, period = -1;
  if (version_2) {
    std::sscanf(read_text(folder + "/cpu.max").c_str(), "%lld %lld", &quota, &period); /* "200000 100000", or "max 100000" */
  } else {
    std::sscanf(read_text(folder + "/cpu.cfs_quota_us").c_str(), "%lld", &quota); /* -1: none */
    std::sscanf(read_text(folder + "/cpu.cfs_period_us").c_str(), "%lld", &period);
  }
  return quota > 0 && period > 0 ? (quota - 1) / period + 1 : 0;
}

int affinity_processors() {
#if defined(__linux__)
  for (size_t most = 1024; most <= size_t(1) << 20; most *= 2) {
    cpu_set_t *set = CPU_ALLOC(most);
    if (set == nullptr) break;
    const bool fits = sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0;
    const int count = fits ? CPU_COUNT_S(CPU_ALLOC_SIZE(most), set) : 0;
    const bool too_small = !fits && errno == EINVAL;
    CPU_FREE(set);
    if (count > 0) return count;
    if (!too_small) break;
  }
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int quota_processors(const std::string &root) {
  int64_t least = 0;
  for (const Hierarchy &hierarchy : find_hierarchies(root)) {
    std::string below = path_below(find_group(root, hierarchy.version_2), hierarchy.root);
    for (bool more = true; more;) {
      if (below == "/") below = "";
      const int64_t quota = read_quota(root + hierarchy.mount + below, hierarchy.version_2);
      if (quota > 0 && (least == 0 || quota < least)) least = quota;
      more = !below.empty();
      if (more) below.erase(below.rfind('/'));
    }
  }
  return static_cast<int>(std::min<int64_t>(least, INT32_MAX));
}

int usable_processors() {
  const int available = std::max(1, affinity_processors()), quota = quota_processors("");
  return quota > 0 ? std::min(available, quota) : available;
}

ArmFeatures arm_features() {
#if defined(__linux__) && defined(__aarch64__)
  constexpr unsigned long kDot = 1ul << 20, kBf16 = 1ul << 14; /* HWCAP_ASIMDDP and HWCAP2_BF16, which older headers lack */
  return {(getauxval(AT_HWCAP) & kDot) != 0, (getauxval(AT_HWCAP2) & kBf16) != 0};
#else
  return {};
#endif
}

bool request_amx() {
#if defined(__linux__) && defined(__x86_64__)
  unsigned a, b, c, d; /* __builtin_cpu_supports of older compilers does not know these */
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = (d >> 22 & 1) != 0 && (d >> 24 & 1) != 0; /* AMX-BF16 and AMX-TILE */
  if (!tiles || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a >> 5 & 1) == 0 /* AVX512-BF16 */) return false;
  constexpr long kRequestFeature = 0x1023, kTileData = 18; /* ARCH_REQ_XCOMP_PERM of Linux 5.16, XFEATURE_XTILEDATA */
  return syscall(SYS_arch_prctl, kRequestFeature, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace ps
