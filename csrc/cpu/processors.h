/* The number of processors that the process may use. */
#pragma once

#include <string>

namespace ps {

/* Processors in the affinity mask, limited by the CPU quota of the process's control groups (container); at least 1. */
int usable_processors();

/* The CPU quota in processors, rounded up: the smallest of all control groups of this process, nested ones included, in versions 1 and 2;
 * 0 without a quota. `root` comes before every path that is read: "" for the system's own files. */
int quota_processors(const std::string &root);

}  // namespace ps
