/* The handles, and the guard around the body of every exported call. */
#pragma once

#include <atomic>
#include <cstdio>
#include <deque>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "../group.h"

extern std::atomic<int64_t> ps_open_handles;

namespace ps {

constexpr int kMessageBytes = 1024;

/* Sets the text that ps_error_message returns to this thread. Allocates nothing, because the failure may be a lack of memory. */
void set_message(const char *text) noexcept;
/* The text, and a copy of it. */
const char *message() noexcept;
void copy_message(char *out, int32_t bytes) noexcept;

/* Fails a call that cannot reach a device. */
inline int32_t refuse(const char *text) noexcept {
  set_message(text);
  return PS_INVALID_ARGUMENT;
}
constexpr const char *kClosedDevice = "The device is closed", *kClosedHandle = "The handle is closed", *kNullHandle = "The handle is NULL";

/* A read that is finished later: its bytes, and the member that has them. */
struct LaterRead {
  int64_t bytes;
  size_t member;
};

}  // namespace ps

struct ps_device {
  ps::Backend *backend; /* the member that the current call is about; null once closed */
  std::vector<ps::Backend *> members; /* one, or those of a group */
  std::vector<int32_t> indices;       /* their numbers, for messages */
  ps::Group *group = nullptr;         /* what connects several */
  int32_t only = -1;                  /* the member that calls are restricted to, or -1 */
  size_t member = 0;                  /* the index of `backend` in `members` */
  std::mutex mutex;     /* locked by every call: calls from two threads run one after another, and a close waits for a pending wait */
  int64_t allocated_bytes = 0;
  int64_t children = 0;
  ps_status poison = PS_OK;                   /* a device error is permanent */
  char poison_message[ps::kMessageBytes] = ""; /* its text */
  bool recording = false;
  std::deque<ps::LaterRead> reads; /* those that were started and not finished, oldest first */
};

namespace ps {

/* The device of a child, or null once the child is closed. Any thread may read it. */
class Owner {
 public:
  Owner(ps_device *device) : device_(device) {}
  Owner(const Owner &other) : device_(other.get()) {} /* while the handle is created */
  ps_device *get() const { return device_.load(std::memory_order_acquire); }
  ps_device *operator->() const { return get(); }
  ps_device &operator*() const { return *get(); }
  bool clear() { return device_.exchange(nullptr) != nullptr; }

 private:
  std::atomic<ps_device *> device_;
};

}  // namespace ps

/* What a child has on each member of its device; `here` is that of the member that the current call is about. */
struct ps_buffer {
  ps::Owner device;
  std::vector<void *> memory;
  int64_t bytes; /* on each member */

  char *here() const { return static_cast<char *>(memory[device->member]); }
};

struct ps_graph {
  ps::Owner device;
  std::vector<void *> graphs;
};

struct ps_cache {
  ps::Owner device;
  std::vector<ps::CacheView> views;
  std::vector<void *> memory;
  int64_t bytes; /* on each member */

  const ps::CacheView &here() const { return views[device->member]; }
};

namespace ps {

/* Throws PS_INVALID_ARGUMENT unless the condition holds. The message is only joined from its parts on failure, because these checks
 * run at every operation. */
inline std::string text_of(const char *part) { return part; }
inline std::string text_of(int64_t part) { return std::to_string(part); }

template <typename... Parts>
void require(bool condition, const Parts &...parts) {
  if (!condition) throw Error(PS_INVALID_ARGUMENT, (std::string() + ... + text_of(parts)));
}

/* The status for the exception that is being handled; its text becomes the thread's message. */
inline ps_status status_of_exception() noexcept {
  try {
    throw;
  } catch (const Error &error) {
    set_message(error.what());
    return error.status;
  } catch (const std::bad_alloc &) {
    set_message("Out of main memory");
    return PS_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    set_message(error.what());
    return PS_INTERNAL;
  } catch (...) {
    set_message("Unknown failure in the native library");
    return PS_INTERNAL;
  }
}

/* Directs what follows to a member. */
inline void enter(ps_device &device, size_t member) {
  device.member = member;
  device.backend = device.members[member];
  backend_enter(*device.backend);
}

/* Runs a part of a call on every member that the caller addresses, one after another. */
template <typename Body>
void for_members(ps_device &device, Body &&body) {
  const size_t first = device.only < 0 ? 0 : static_cast<size_t>(device.only), end = device.only < 0 ? device.members.size() : first + 1;
  for (size_t member = first; member < end; member++) {
    enter(device, member);
    body();
  }
}

/* Adds to the thread's message which member of a group failed. */
inline void name_member(const ps_device &device) noexcept {
  if (device.members.size() < 2) return;
  char text[kMessageBytes];
  std::snprintf(text, sizeof text, "%.*s; on device %d", kMessageBytes - 32, message(), static_cast<int>(device.indices[device.member]));
  set_message(text);
}

/* Runs the body of a call once, on the first member that the caller addresses. An exception becomes the status, and its text the thread's
 * message. */
template <typename Body>
int32_t guard(ps_device *device, Body &&body) {
  if (device == nullptr) return refuse(kNullHandle);
  std::lock_guard<std::mutex> lock(device->mutex);
  if (device->backend == nullptr) return refuse(kClosedDevice);
  if (device->poison != PS_OK) {
    set_message(device->poison_message);
    return device->poison;
  }
  try {
    enter(*device, device->only < 0 ? 0 : static_cast<size_t>(device->only));
    body();
    return PS_OK;
  } catch (...) {
    const ps_status status = status_of_exception();
    if (status != PS_INVALID_ARGUMENT) name_member(*device);
    if (status == PS_DEVICE_ERROR) {
      device->poison = status;
      std::snprintf(device->poison_message, sizeof device->poison_message, "%s", message());
    }
    return status;
  }
}

/* Runs the body on every member. */
template <typename Body>
int32_t guard_each(ps_device *device, Body &&body) {
  return guard(device, [&] { for_members(*device, body); });
}

/* The same for a call on a buffer, cache or graph, which may have been closed before the call or while it waited for the lock. */
template <typename Child, typename Body>
int32_t guard_child(Child *child, Body &&body) {
  if (child == nullptr) return refuse(kNullHandle);
  ps_device *device = child->device.get();
  if (device == nullptr) return refuse(kClosedHandle);
  return guard(device, [&] {
    require(child->device.get() == device, kClosedHandle);
    body();
  });
}

template <typename Child, typename Body>
int32_t guard_each_child(Child *child, Body &&body) {
  return guard_child(child, [&] { for_members(*child->device, body); });
}

/* Delays freeing the latest closed handles of a kind, so that a second close, or a use after the close, finds a handle that is marked
 * as closed instead of reused memory. */
template <typename Handle>
void retire(Handle *handle) noexcept {
  constexpr size_t kRetired = 4096;
  static std::mutex mutex;
  static Handle *retired[kRetired];
  static size_t next = 0;
  std::lock_guard<std::mutex> lock(mutex);
  std::swap(retired[next], handle);
  next = (next + 1) % kRetired;
  delete handle;
}

/* Closes a child once, even if two threads try. */
template <typename Child, typename Body>
int32_t close_child(Child *child, Body &&free_memory) noexcept {
  if (child == nullptr) return refuse(kNullHandle);
  ps_device *device = child->device.get();
  if (device == nullptr) return refuse(kClosedHandle);
  {
    std::lock_guard<std::mutex> lock(device->mutex);
    if (!child->device.clear()) return refuse(kClosedHandle);
    free_memory(*device);
  }
  retire(child);
  ps_open_handles--;
  return PS_OK;
}

/* Refuses a call that cannot be recorded. */
inline void require_running(const ps_device &device) { require(!device.recording, "The device is recording a graph; end it first"); }

/* Memory on every member, counted on the handle of the device. */
std::vector<void *> allocate(ps_device &device, int64_t bytes);
void release(ps_device &device, const std::vector<void *> &memory, int64_t bytes);

}  // namespace ps
