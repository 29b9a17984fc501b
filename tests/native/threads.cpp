/* Two threads on one device, which both fail, on one cache and on two devices, handles closed by both at once, and a close during a pending
 * wait. For ThreadSanitizer.
 *
 *     threads ROUNDS
 */
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "support.h"

namespace {

ps_device *open_device() {
  const ps_device_options options{0, 3};
  ps_device *device = nullptr;
  MUST(ps_device_open(&options, &device, nullptr, 0) == PS_OK);
  return device;
}

ps_buffer *make_buffer(ps_device *device) {
  ps_buffer *buffer = nullptr;
  MUST(ps_buffer_create(device, 1 << 16, &buffer) == PS_OK);
  return buffer;
}

void add(ps_device *device, ps_buffer *buffer, bool may_be_closed) {
  const ps_tensor x{buffer, 0, 64, {64, 64, 1}, 2, PS_F32}, y{buffer, 1 << 15, 64, {64, 64, 1}, 2, PS_F32};
  const int32_t status = ps_add(device, &x, &y);
  MUST(status == PS_OK || (may_be_closed && status == PS_INVALID_ARGUMENT));
}

template <typename First, typename Second>
void both(First first, Second second) {
  std::thread thread(second);
  first();
  thread.join();
}

/* Both threads fail, each in its own way: the message of a failure is that of the thread's own call. */
void same_device(int rounds) {
  ps_device *device = open_device();
  ps_buffer *shared = make_buffer(device);
  auto body = [&](int64_t outside) {
    char message[64], expected[64];
    std::snprintf(expected, sizeof expected, "1 bytes at %lld are outside", static_cast<long long>(outside));
    for (int i = 0; i < rounds; i++) {
      add(device, shared, false);
      ps_buffer *own = make_buffer(device);
      MUST(ps_buffer_write(own, outside, message, 1) == PS_INVALID_ARGUMENT);
      add(device, shared, false);
      MUST(ps_error_message(message, sizeof message) == PS_OK);
      MUST(std::strncmp(message, expected, std::strlen(expected)) == 0);
      MUST(ps_buffer_close(own) == PS_OK);
    }
  };
  both([&] { body(-1); }, [&] { body(1 << 20); });
  MUST(ps_buffer_close(shared) == PS_OK && ps_device_close(device) == PS_OK);
}

ps_cache *make_cache(ps_device *device) {
  const ps_cache_desc desc = small_cache();
  ps_cache *cache = nullptr;
  MUST(ps_cache_create(device, &desc, &cache) == PS_OK);
  return cache;
}

/* Both threads write to one cache, whose scratch and counters they share, and one of them closes it under the other. */
void same_cache(int rounds) {
  ps_device *device = open_device();
  ps_buffer *buffer = make_buffer(device);
  const int32_t length = 1;
  MUST(ps_buffer_write(buffer, 64, &length, 4) == PS_OK); /* one token, in the page that the zeros before it name */
  const ps_tensor slots{buffer, 0, 1, {1, 1, 1}, 1, PS_I32}, table{buffer, 0, 1, {1, 1, 1}, 2, PS_I32}, lengths{buffer, 64, 1, {1, 1, 1}, 1, PS_I32};
  const ps_tensor x{buffer, 4096, 32, {1, 2, 16}, 3, PS_F32}, out{buffer, 8192, 32, {1, 2, 16}, 3, PS_F32};
  for (int i = 0; i < rounds; i++) {
    ps_cache *cache = make_cache(device);
    std::atomic<int> closed{0};
    const auto holds = [](int32_t status) { return status == PS_OK || status == PS_INVALID_ARGUMENT; };
    auto body = [&] {
      ps_counters counters;
      MUST(holds(ps_append_kv(cache, 0, &x, &x, &slots)));
      MUST(holds(ps_decode_attention(cache, 0, 0.25f, 0, &x, &table, &lengths, nullptr, nullptr, &out)));
      MUST(holds(ps_cache_counters(cache, &counters)));
      closed += ps_cache_close(cache) == PS_OK;
    };
    both(body, body);
    MUST(closed == 1 && ps_cache_reset_counters(cache) == PS_INVALID_ARGUMENT);
  }
  MUST(ps_buffer_close(buffer) == PS_OK && ps_device_close(device) == PS_OK);
}

void two_devices(int rounds) {
  auto body = [=] {
    ps_device *device = open_device();
    ps_buffer *buffer = make_buffer(device);
    for (int i = 0; i < rounds; i++) add(device, buffer, false);
    MUST(ps_buffer_close(buffer) == PS_OK && ps_device_close(device) == PS_OK);
  };
  both(body, body);
}

void closed_by_both(int rounds) {
  for (int i = 0; i < rounds; i++) {
    ps_device *device = open_device();
    ps_buffer *buffer = make_buffer(device);
    std::atomic<int> buffers{0}, devices{0};
    auto body = [&] {
      add(device, buffer, true);
      buffers += ps_buffer_close(buffer) == PS_OK;
      add(device, buffer, true);
      devices += ps_device_close(device) == PS_OK;
      ps_device_wait(device, nullptr, 0);
    };
    both(body, body);
    MUST(buffers == 1 && devices == 1);
  }
}

void closed_while_waiting(int rounds) {
  for (int i = 0; i < rounds; i++) {
    ps_device *device = open_device();
    auto wait = [&] {
      for (int count = 0; count < 20; count++) {
        char message[64] = "";
        const int32_t status = ps_device_wait(device, message, sizeof message);
        MUST(status == PS_OK || (status == PS_INVALID_ARGUMENT && message[0] != '\0'));
      }
    };
    both([&] { MUST(ps_device_close(device) == PS_OK); }, wait);
    MUST(ps_device_wait(device, nullptr, 0) == PS_INVALID_ARGUMENT && ps_device_close(device) == PS_INVALID_ARGUMENT);
  }
}

}  // namespace

int main(int count, char **words) {
  const int rounds = count > 1 ? std::atoi(words[1]) : 200;
  same_device(rounds);
  same_cache(rounds);
  two_devices(rounds);
  closed_by_both(rounds);
  closed_while_waiting(rounds);
  MUST(ps_live_handles() == 0);
  std::printf("rounds %d\n", rounds);
  return 0;
}
