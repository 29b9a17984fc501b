/* A group of devices behind one handle, and the operations that join what its members computed. */
#include <algorithm>
#include <memory>
#include <vector>

#include "tensors.h"

using namespace ps;

namespace {

constexpr int32_t kMostMembers = 64;

/* Opens the members; on failure, closes those that are open. */
void open_members(ps_device &device, const ps_device_options *options, int32_t count) {
  try {
    for (int32_t i = 0; i < count; i++) {
      ps_device_options own = options[i];
      if (kBackendKind == PS_BACKEND_CPU) own.index = 0; /* all members share the one CPU */
      device.members.push_back(backend_open(own));
    }
    if (count > 1) device.group = group_open(device.members);
  } catch (...) {
    for (Backend *member : device.members) backend_close(member);
    throw;
  }
  device.backend = device.members.front();
}

/* What a sum adds up. */
struct Shares {
  std::vector<float *> data; /* [count] of each member */
  int64_t count = 0;
};

Shares shares_of(ps_device &device, const ps_tensor *x) {
  require(device.only < 0, "The calls are restricted to one member; address all of them first");
  Shares shares;
  for_members(device, [&] {
    const Checked own = check_dense(device, "x", x, kF32, {-1, -1});
    shares.data.push_back(own.floats());
    shares.count = own.shape[0] * own.shape[1];
  });
  return shares;
}

}  // namespace

extern "C" {

int32_t ps_group_open(const ps_device_options *options, int32_t count, ps_device **out, char *message, int32_t message_bytes) {
  ps_status status = PS_OK;
  try {
    require(options != nullptr && out != nullptr, "The options or the pointer for the new group are NULL");
    require(count >= 1 && count <= kMostMembers, "A group has 1 to ", int64_t(kMostMembers), " devices, found ", int64_t(count));
    auto device = std::make_unique<ps_device>();
    for (int32_t i = 0; i < count; i++) {
      const int32_t index = options[i].index;
      require(std::find(device->indices.begin(), device->indices.end(), index) == device->indices.end(), "Device ", int64_t(index),
              " is in the group twice");
      device->indices.push_back(index);
    }
    open_members(*device, options, count);
    *out = device.release();
    ps_open_handles++;
  } catch (...) {
    status = status_of_exception();
    copy_message(message, message_bytes);
  }
  return status;
}

int32_t ps_group_only(ps_device *device, int32_t member) {
  return guard(device, [&] {
    const int64_t members = static_cast<int64_t>(device->members.size());
    require(member >= -1 && member < members, "There is no member ", int64_t(member), " in a group of ", members);
    device->only = member;
  });
}

int32_t ps_all_reduce(ps_device *device, const ps_tensor *x) {
  return guard(device, [&] {
    const Shares shares = shares_of(*device, x);
    if (device->group != nullptr) all_reduce(*device->group, shares.data, shares.count);
  });
}

int32_t ps_all_reduce_start(ps_device *device, const ps_tensor *x) {
  return guard(device, [&] {
    const Shares shares = shares_of(*device, x);
    if (device->group != nullptr) all_reduce_start(*device->group, shares.data, shares.count);
  });
}

int32_t ps_all_reduce_finish(ps_device *device, const ps_tensor *x) {
  return guard(device, [&] {
    const Shares shares = shares_of(*device, x);
    if (device->group != nullptr) all_reduce_finish(*device->group, shares.data, shares.count);
  });
}

int32_t ps_all_gather(ps_device *device, const ps_tensor *x, const ps_tensor *out) {
  return guard(device, [&] {
    require(device->only < 0, "The calls are restricted to one member; address all of them first");
    require(device->group != nullptr, "A single device has nothing to gather");
    std::vector<const float *> parts;
    std::vector<float *> joined;
    int64_t stride = 0, rows = 0, width = 0;
    for_members(*device, [&] {
      const Checked own = check_dense(*device, "x", x, kF32, {-1, -1});
      rows = own.shape[0];
      width = own.shape[1];
      const Checked all = check_tensor(*device, "out", out, kF32, {rows, width * static_cast<int64_t>(device->members.size())});
      require_apart("out", out, {x});
      stride = all.stride;
      parts.push_back(own.floats());
      joined.push_back(all.floats());
    });
    all_gather(*device->group, parts, joined, stride, rows, width);
  });
}

}  // extern "C"
