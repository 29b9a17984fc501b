/* Memory, mappings and threads that the system refuses, at each request in turn: a status every time, nothing left behind, and the device
 * serves on. Linked with --wrap=mmap and --wrap=pthread_create; the sanitizer's own requests do not pass here. */
#include <pthread.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <new>

#include "calls.h"

namespace {

thread_local int64_t t_left = -1; /* requests until the one that fails; below 0: none does */
thread_local bool t_failed = false;

bool fails_now() {
  if (t_left < 0 || t_left-- > 0) return false;
  t_failed = true;
  return true;
}

void *request(size_t bytes) {
  void *memory = fails_now() ? nullptr : std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void fail(const char *condition, const char *file, int line) {
  t_left = -1;
  std::fprintf(stderr, "FAILED: %s at %s:%d\n", condition, file, line);
  std::abort();
}

void *operator new(size_t bytes) { return request(bytes); }
void *operator new[](size_t bytes) { return request(bytes); }
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory, size_t) noexcept { std::free(memory); }

extern "C" {
void *__real_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_mmap(void *where, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (!fails_now()) return __real_mmap(where, bytes, protection, flags, file, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
  return fails_now() ? EAGAIN : __real_pthread_create(thread, attributes, body, argument);
}
}

namespace {

int64_t g_statuses = 0;

/* A status of the contract; where a request failed, the one that says so. */
int32_t checked(int32_t status) {
  MUST(status == PS_OK || (t_failed && status == PS_OUT_OF_MEMORY));
  g_statuses++;
  return status;
}

ps_tensor view(ps_buffer *buffer, int32_t dtype, int64_t offset, int64_t a, int64_t b, int64_t c, int32_t rank) {
  return {buffer, offset, b * c, {a, b, c}, rank, dtype};
}

/* What a short generation calls, and two calls that are refused, whose message needs memory too. */
void operate(ps_device *device, ps_cache *cache, ps_buffer *numbers, ps_buffer *floats) {
  int32_t pages[64];
  for (int i = 0; i < 64; i++) pages[i] = i % 16;
  const int32_t length = 9 * 8;
  checked(ps_buffer_write(numbers, 0, pages, sizeof pages));
  checked(ps_buffer_write(numbers, 256, &length, 4));
  const ps_tensor slots = view(numbers, PS_I32, 0, 1, 1, 1, 1), table = view(numbers, PS_I32, 0, 1, 16, 1, 2);
  const ps_tensor lengths = view(numbers, PS_I32, 256, 1, 1, 1, 1), selected = view(numbers, PS_I32, 512, 1, 2, 4, 3);
  const ps_tensor counts = view(numbers, PS_I32, 1024, 1, 2, 1, 2), drawn = view(numbers, PS_I32, 2048, 4, 1, 1, 1);
  const ps_tensor x = view(floats, PS_F32, 0, 1, 2, 16, 3), scores = view(floats, PS_F32, 4096, 1, 2, 16, 3);
  const ps_tensor out = view(floats, PS_F32, 8192, 1, 2, 16, 3), wide = view(floats, PS_F32, 0, 4, 512, 1, 2);
  const ps_tensor square = view(floats, PS_F32, 0, 8, 512, 1, 2), product = view(floats, PS_F32, 65536, 4, 8, 1, 2);
  const ps_tensor settings = view(floats, PS_F32, 0, 4, 4, 1, 2), draws = view(floats, PS_F32, 0, 4, 1, 1, 1);
  checked(ps_append_kv(cache, 0, &x, &x, &slots));
  checked(ps_matmul(device, &wide, &square, nullptr, &product));
  checked(ps_sample(device, &wide, &settings, &draws, &drawn));
  checked(ps_sparse_attention(cache, 0, PS_UNIQUE, 0.5f, 1, 2, 0.25f, &x, &table, &lengths, &scores, &selected, &counts, &out));
  const ps_tensor prefill_table = view(numbers, PS_I32, 0, 16, 1, 1, 1);
  checked(ps_prefill_attention(cache, 1, 0.25f, 0, 3, &x, &prefill_table, &out));
  for (const int32_t layer : {-1, 99}) {
    const int32_t status = ps_append_kv(cache, layer, &x, &x, &slots);
    MUST(status == PS_INVALID_ARGUMENT || (t_failed && status == PS_OUT_OF_MEMORY));
  }
  MUST(ps_device_close(device) == PS_INVALID_ARGUMENT);
}

void work(ps_device *device) {
  ps_cache_desc desc{};
  desc.num_pages = desc.max_pages_per_sequence = 16;
  desc.num_layers = desc.num_query_heads = desc.num_kv_heads = 2;
  desc.head_dim = 16;
  desc.page_size = 8;
  desc.max_sequences = 1;
  ps_cache *cache = nullptr;
  ps_buffer *numbers = nullptr, *floats = nullptr;
  checked(ps_cache_create(device, &desc, &cache));
  checked(ps_buffer_create(device, 4096, &numbers));
  checked(ps_buffer_create(device, 1 << 20, &floats));
  if (cache && numbers && floats) operate(device, cache, numbers, floats);
  if (cache) MUST(ps_cache_close(cache) == PS_OK);
  if (numbers) MUST(ps_buffer_close(numbers) == PS_OK);
  if (floats) MUST(ps_buffer_close(floats) == PS_OK);
}

/* One run in which request number `at` fails, and one without failures on the same device after it. Whether a request did fail. */
bool run(int64_t at) {
  t_left = at;
  t_failed = false;
  const ps_device_options options{0, 4};
  ps_device *device = nullptr;
  char message[256] = "";
  if (checked(ps_device_open(&options, &device, message, sizeof message)) == PS_OK) {
    work(device);
    const bool failed = t_failed;
    t_left = -1;
    t_failed = false;
    work(device);
    MUST(ps_device_close(device) == PS_OK);
    t_failed = failed;
  } else {
    MUST(device == nullptr && message[0] != '\0');
  }
  t_left = -1;
  MUST(ps_live_handles() == 0);
  return t_failed;
}

}  // namespace

int main() {
  run(-1);
  int64_t faults = 0;
  while (run(faults)) faults++;
  std::printf("faults %lld statuses %lld\n", static_cast<long long>(faults), static_cast<long long>(g_statuses));
  return faults > 20 ? 0 : 1;
}
