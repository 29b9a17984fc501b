/* The three handles and the guard that every exported call runs in. */
#pragma once

#include <atomic>
#include <new>
#include <string>

#include "../backend.h"

extern std::atomic<int64_t> ps_open_handles;

struct ps_device {
  ps::Backend *backend;
  int64_t allocated_bytes = 0;
  int64_t children = 0;
  std::string message;
  ps_status poison = PS_OK; /* a device error stays */
  bool recording = false;
};

struct ps_buffer {
  ps_device *device;
  void *memory;
  int64_t bytes;
};

struct ps_graph {
  ps_device *device;
  void *graph;
};

struct ps_cache {
  ps_device *device;
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
  if (device->poison != PS_OK) return device->poison;
  try {
    body();
    return PS_OK;
  } catch (const Error &error) {
    device->message = error.what();
    if (error.status == PS_DEVICE_ERROR) device->poison = error.status;
    return error.status;
  } catch (const std::bad_alloc &) {
    device->message = "Out of main memory";
    return PS_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    device->message = error.what();
    return PS_INTERNAL;
  } catch (...) {
    device->message = "Unknown failure in the native library";
    return PS_INTERNAL;
  }
}

/* Refuses what cannot be recorded. */
inline void require_running(const ps_device &device) {
  require(!device.recording, "The device is recording a graph; end it first");
}

/* Memory of a device, counted on its handle. */
void *allocate(ps_device &device, int64_t bytes);
void release(ps_device &device, void *memory, int64_t bytes);

}  // namespace ps
