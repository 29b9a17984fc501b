/* What a build provides for a group of devices behind one ps_device (csrc/api/group.cpp). */
#pragma once

#include <vector>

#include "backend.h"

namespace ps {

struct Group; /* defined by each build: what connects GPUs, or nothing */

/* Connects members that are open; on failure, they stay open. */
Group *group_open(const std::vector<Backend *> &members);
void group_close(Group *group);

/* Directs the calls of this thread to a member. */
void backend_enter(Backend &backend);

/* data[i] [count] of every member becomes the sum over all of them. */
void all_reduce(Group &group, const std::vector<float *> &data, int64_t count);
/* The same in two steps, between which the members go on with work that leaves data alone. */
void all_reduce_start(Group &group, const std::vector<float *> &data, int64_t count);
void all_reduce_finish(Group &group, const std::vector<float *> &data, int64_t count);
/* out[i] [rows, members * width] of every member becomes the rows of x[j] [rows, width] of all members j, side by side. */
void all_gather(Group &group, const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width);

}  // namespace ps
