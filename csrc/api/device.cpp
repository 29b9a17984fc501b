#include <algorithm>
#include <cstring>
#include <memory>

#include "handles.h"

std::atomic<int64_t> ps_open_handles{0};

namespace ps {
namespace {

/* One per thread, so that no other thread's failure replaces it before the caller reads it. */
thread_local char t_message[kMessageBytes] = "";

}  // namespace

void set_message(const char *text) noexcept { std::snprintf(t_message, sizeof t_message, "%s", text); }
const char *message() noexcept { return t_message; }

void copy_message(char *out, int32_t bytes) noexcept {
  if (out != nullptr && bytes > 0) std::snprintf(out, static_cast<size_t>(bytes), "%s", t_message);
}

std::vector<void *> allocate(ps_device &device, int64_t bytes) {
  require_running(device);
  std::vector<void *> memory;
  memory.reserve(device.members.size());
  try {
    for (size_t member = 0; member < device.members.size(); member++) {
      enter(device, member);
      memory.push_back(memory_allocate(*device.backend, bytes));
    }
  } catch (...) {
    for (size_t member = 0; member < memory.size(); member++) memory_free(*device.members[member], memory[member], bytes);
    throw;
  }
  device.allocated_bytes += bytes * static_cast<int64_t>(memory.size());
  device.children++;
  return memory;
}

void release(ps_device &device, const std::vector<void *> &memory, int64_t bytes) {
  for (size_t member = 0; member < memory.size(); member++) memory_free(*device.members[member], memory[member], bytes);
  device.allocated_bytes -= bytes * static_cast<int64_t>(memory.size());
  device.children--;
}

namespace {

void check_range(const ps_buffer &buffer, int64_t offset, const void *memory, int64_t bytes) {
  require(bytes >= 0 && offset >= 0 && offset <= buffer.bytes && bytes <= buffer.bytes - offset, int64_t(bytes), " bytes at ", int64_t(offset),
          " are outside a buffer of ", int64_t(buffer.bytes));
  require(memory != nullptr || bytes == 0, "The memory to copy from or to is NULL");
}

}  // namespace
}  // namespace ps

extern "C" {

int32_t ps_abi_version(void) { return PS_ABI_VERSION; }

int32_t ps_struct_bytes(int32_t which) {
  static const int32_t kBytes[] = {sizeof(ps_tensor),     sizeof(ps_device_options), sizeof(ps_device_info),
                                   sizeof(ps_cache_desc), sizeof(ps_cache_bytes),    sizeof(ps_counters)};
  return which >= 0 && which < 6 ? kBytes[which] : -1;
}

int64_t ps_live_handles(void) { return ps_open_handles.load(); }

int32_t ps_error_message(char *out, int32_t bytes) {
  if (out == nullptr || bytes <= 0) return PS_INVALID_ARGUMENT; /* without replacing the message */
  ps::copy_message(out, bytes);
  return PS_OK;
}

int32_t ps_device_open(const ps_device_options *options, ps_device **out, char *message, int32_t message_bytes) {
  ps_status status = PS_OK;
  try {
    ps::require(options != nullptr && out != nullptr, "The options or the pointer for the new device are NULL");
    auto device = std::make_unique<ps_device>();
    device->backend = ps::backend_open(*options);
    device->members = {device->backend};
    device->indices = {options->index};
    *out = device.release();
    ps_open_handles++;
  } catch (...) {
    status = ps::status_of_exception();
    ps::copy_message(message, message_bytes);
  }
  return status;
}

int32_t ps_device_close(ps_device *device) {
  if (device == nullptr) return ps::refuse(ps::kNullHandle);
  {
    std::lock_guard<std::mutex> lock(device->mutex);
    if (device->backend == nullptr) return ps::refuse(ps::kClosedDevice);
    if (device->children != 0) {
      char text[ps::kMessageBytes];
      std::snprintf(text, sizeof text, "The device still has %lld open buffers, caches and graphs; close them first",
                    static_cast<long long>(device->children));
      return ps::refuse(text);
    }
    if (device->group != nullptr) ps::group_close(device->group);
    for (ps::Backend *member : device->members) ps::backend_close(member);
    device->backend = nullptr;
  }
  ps::retire(device);
  ps_open_handles--;
  return PS_OK;
}

int32_t ps_device_describe(ps_device *device, ps_device_info *out) {
  return ps::guard(device, [&] {
    ps::require(out != nullptr, "The struct for the description of the device is NULL");
    *out = ps_device_info{};
    int64_t available = INT64_MAX;
    for (ps::Backend *member : device->members) {
      ps::backend_describe(*member, *out);
      available = std::min(available, out->available_bytes);
    }
    out->available_bytes = available;
    out->backend = ps::kBackendKind;
    out->allocated_bytes = device->allocated_bytes;
  });
}

int32_t ps_device_wait(ps_device *device, char *message, int32_t message_bytes) {
  const int32_t status = ps::guard_each(device, [&] {
    ps::require_running(*device);
    ps::backend_wait(*device->backend);
  });
  if (status != PS_OK) ps::copy_message(message, message_bytes);
  return status;
}

int32_t ps_buffer_create(ps_device *device, int64_t bytes, ps_buffer **out) {
  return ps::guard(device, [&] {
    ps::require(out != nullptr, "The pointer for the new buffer is NULL");
    ps::require(bytes > 0, "A buffer must have at least 1 byte, found ", int64_t(bytes));
    auto buffer = std::make_unique<ps_buffer>(ps_buffer{device, {}, bytes});
    buffer->memory = ps::allocate(*device, bytes);
    *out = buffer.release();
    ps_open_handles++;
  });
}

int32_t ps_buffer_close(ps_buffer *buffer) {
  return ps::close_child(buffer, [&](ps_device &device) { ps::release(device, buffer->memory, buffer->bytes); });
}

int32_t ps_buffer_write(ps_buffer *buffer, int64_t offset, const void *source, int64_t bytes) {
  return ps::guard_each_child(buffer, [&] {
    ps::require_running(*buffer->device);
    ps::check_range(*buffer, offset, source, bytes);
    if (bytes > 0) ps::memory_write(*buffer->device->backend, buffer->here() + offset, source, bytes);
  });
}

int32_t ps_buffer_read(ps_buffer *buffer, int64_t offset, void *target, int64_t bytes) {
  return ps::guard_child(buffer, [&] {
    ps::require_running(*buffer->device);
    ps::check_range(*buffer, offset, target, bytes);
    if (bytes > 0) ps::memory_read(*buffer->device->backend, target, buffer->here() + offset, bytes);
  });
}

int32_t ps_read_start(ps_buffer *buffer, int64_t offset, int64_t bytes) {
  return ps::guard_child(buffer, [&] {
    ps_device &device = *buffer->device;
    ps::require_running(device);
    ps::require(bytes >= 1 && bytes <= ps::kLetterBytes, "A read that is finished later has ", bytes, " bytes, expected 1 to ", ps::kLetterBytes);
    ps::require(device.reads.size() < size_t(ps::kMostLetters), "Too many reads are under way; finish one first");
    ps::check_range(*buffer, offset, buffer, bytes);
    ps::memory_read_start(*device.backend, buffer->here() + offset, bytes);
    device.reads.push_back({bytes, device.member});
  });
}

int32_t ps_read_finish(ps_device *device, void *target, int64_t bytes) {
  return ps::guard(device, [&] {
    ps::require_running(*device);
    ps::require(!device->reads.empty(), "No read was started");
    ps::require(target != nullptr, "The target of the read is NULL");
    const ps::LaterRead oldest = device->reads.front();
    ps::require(bytes == oldest.bytes, "The oldest read has ", oldest.bytes, " bytes, not ", bytes);
    device->reads.pop_front();
    ps::enter(*device, oldest.member);
    ps::memory_read_finish(*device->backend, target, bytes);
  });
}

int32_t ps_buffer_scan(ps_buffer *buffer, uint32_t *out) {
  return ps::guard_child(buffer, [&] {
    ps::require_running(*buffer->device);
    ps::require(out != nullptr, "The pointer for the result of the scan is NULL");
    ps::scan(*buffer->device->backend, {reinterpret_cast<const uint32_t *>(buffer->here()), buffer->bytes / 4, out});
  });
}

}  // extern "C"
