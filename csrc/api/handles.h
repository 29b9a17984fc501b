/* The handles and the guard that every exported call runs in. */
#pragma once

#include <atomic>
#include <cstdio>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "../backend.h"

extern std::atomic<int64_t> ps_open_handles;

struct ps_device {
  ps::Backend *backend; /* null once closed */
  std::mutex mutex;     /* held by every call, so that calls from two threads take turns, and a close waits for a pending wait */
  int64_t allocated_bytes = 0;
  int64_t children = 0;
  char message[1024] = "";
  ps_status poison = PS_OK; /* a device error stays */
  bool recording = false;

  /* Needs no memory, since the failure may be that there is none. */
  void say(const char *text) noexcept { std::snprintf(message, sizeof message, "%s", text); }
};

namespace ps {

/* The device of a child; null once the child is closed, which any thread may look at. */
class Owner {
 public:
  Owner(ps_device *device) : device_(device) {}
  Owner(const Owner &other) : device_(other.get()) {} /* while the handle is being made */
  ps_device *get() const { return device_.load(std::memory_order_acquire); }
  ps_device *operator->() const { return get(); }
  ps_device &operator*() const { return *get(); }
  bool clear() { return device_.exchange(nullptr) != nullptr; }

 private:
  std::atomic<ps_device *> device_;
};

}  // namespace ps

struct ps_buffer {
  ps::Owner device;
  void *memory;
  int64_t bytes;
};

struct ps_graph {
  ps::Owner device;
  void *graph;
};

struct ps_cache {
  ps::Owner device;
  ps::CacheView view;
  void *memory;
  int64_t bytes;
};

namespace ps {

/* Throws PS_INVALID_ARGUMENT with the message, made of its parts, unless the condition holds. The parts are joined only then:
 * these checks run at every operation. */
inline std::string text_of(const char *part) { return part; }
inline std::string text_of(int64_t part) { return std::to_string(part); }

template <typename... Parts>
void require(bool condition, const Parts &...parts) {
  if (!condition) throw Error(PS_INVALID_ARGUMENT, (std::string() + ... + text_of(parts)));
}

/* Runs the body of a call; whatever it throws becomes the status, with its text left on the device. */
template <typename Body>
int32_t guard(ps_device *device, Body &&body) {
  if (device == nullptr) return PS_INVALID_ARGUMENT;
  std::lock_guard<std::mutex> lock(device->mutex);
  if (device->backend == nullptr) return PS_INVALID_ARGUMENT;
  if (device->poison != PS_OK) return device->poison;
  try {
    body();
    return PS_OK;
  } catch (const Error &error) {
    device->say(error.what());
    if (error.status == PS_DEVICE_ERROR) device->poison = error.status;
    return error.status;
  } catch (const std::bad_alloc &) {
    device->say("Out of main memory");
    return PS_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    device->say(error.what());
    return PS_INTERNAL;
  } catch (...) {
    device->say("Unknown failure in the native library");
    return PS_INTERNAL;
  }
}

/* The same for a call on a buffer, cache or graph, which may have been closed before or while the call waited for its turn. */
template <typename Child, typename Body>
int32_t guard_child(Child *child, Body &&body) {
  ps_device *device = child == nullptr ? nullptr : child->device.get();
  return guard(device, [&] {
    require(child->device.get() == device, "The handle is closed");
    body();
  });
}

/* Keeps the latest closed handles of a kind in memory and frees older ones, so that a second close and a use after it find a handle
 * that says it is closed, instead of memory that is something else by now. */
template <typename Handle>
void retire(Handle *handle) noexcept {
  constexpr size_t kKept = 4096;
  static std::mutex mutex;
  static Handle *kept[kKept];
  static size_t next = 0;
  std::lock_guard<std::mutex> lock(mutex);
  std::swap(kept[next], handle);
  next = (next + 1) % kKept;
  delete handle;
}

/* Closes a child: once, also when two threads try. */
template <typename Child, typename Body>
int32_t close_child(Child *child, Body &&free_memory) noexcept {
  ps_device *device = child == nullptr ? nullptr : child->device.get();
  if (device == nullptr) return PS_INVALID_ARGUMENT;
  {
    std::lock_guard<std::mutex> lock(device->mutex);
    if (!child->device.clear()) return PS_INVALID_ARGUMENT;
    free_memory(*device);
  }
  retire(child);
  ps_open_handles--;
  return PS_OK;
}

/* Refuses what cannot be recorded. */
inline void require_running(const ps_device &device) { require(!device.recording, "The device is recording a graph; end it first"); }

/* Memory of a device, counted on its handle. */
void *allocate(ps_device &device, int64_t bytes);
void release(ps_device &device, void *memory, int64_t bytes);

}  // namespace ps
