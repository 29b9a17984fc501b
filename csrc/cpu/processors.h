/* How many processors the process may use. */
#pragma once

#include <string>

namespace ps {

/* Processors of the affinity mask, but no more than the CPU quota of the process's control groups (container) allows; at least 1. */
int usable_processors();

/* The CPU quota in processors, rounded up: the smallest of all control groups of this process, nested ones included, in versions 1 and 2;
 * 0 without a quota. `root` comes before every path that is read: "" for the system's own files. */
int quota_processors(const std::string &root);

}  // namespace ps
