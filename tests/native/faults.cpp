/* Memory, mappings and threads that the system refuses, at each request in turn: a status every time, nothing left behind, and the device
 * still works. Linked with --wrap=mmap and --wrap=pthread_create; the sanitizer's own requests do not pass here. */
#include <pthread.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <initializer_list>
#include <new>

#include "support.h"

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

/* A device with a cache and buffers, created again for every fault, so that no scratch memory is there from an earlier one. */
struct Scene {
  ps_device *device = nullptr;
  ps_cache *cache = nullptr;
  ps_buffer *numbers = nullptr, *floats = nullptr;
  ps_tensor slots, table, row, rows, lengths, selected, counts, drawn, experts; /* i32 */
  ps_tensor x, scores, out, wide, other, square, product, settings, draws, shares, weight, halves, frequencies, turns, addend, normed, blocks, summed;

  /* Whether all of it could be made. */
  bool open();
  void close();

 private:
  bool write_numbers();
  void make_views();
};

bool Scene::open() {
  const ps_device_options options{0, 4};
  char message[256] = "";
  if (checked(ps_device_open(&options, &device, message, sizeof message)) != PS_OK) {
    MUST(device == nullptr && message[0] != '\0');
    return false;
  }
  const ps_cache_desc desc = small_cache();
  checked(ps_cache_create(device, &desc, &cache));
  checked(ps_buffer_create(device, 4096, &numbers));
  checked(ps_buffer_create(device, 1 << 20, &floats));
  if (!cache || !numbers || !floats) return false;
  make_views();
  return write_numbers();
}

bool Scene::write_numbers() {
  int32_t pages[16];
  for (int i = 0; i < 16; i++) pages[i] = i;
  const int32_t length = 9 * 8, four[] = {4, 4};
  return checked(ps_buffer_write(numbers, 0, pages, sizeof pages)) == PS_OK && checked(ps_buffer_write(numbers, 256, &length, 4)) == PS_OK &&
         checked(ps_buffer_write(numbers, 512, pages, 16)) == PS_OK && checked(ps_buffer_write(numbers, 528, pages, 16)) == PS_OK &&
         checked(ps_buffer_write(numbers, 1024, four, sizeof four)) == PS_OK;
}

void Scene::make_views() {
  slots = view(numbers, PS_I32, 0, 1, 1, 1, 1), table = view(numbers, PS_I32, 0, 1, 16, 1, 2), row = view(numbers, PS_I32, 0, 16, 1, 1, 1);
  rows = view(numbers, PS_I32, 0, 4, 1, 1, 1), lengths = view(numbers, PS_I32, 256, 1, 1, 1, 1);
  selected = view(numbers, PS_I32, 512, 1, 2, 4, 3), counts = view(numbers, PS_I32, 1024, 1, 2, 1, 2);
  drawn = view(numbers, PS_I32, 2048, 4, 1, 1, 1), experts = view(numbers, PS_I32, 3072, 4, 2, 1, 2);
  x = view(floats, PS_F32, 0, 1, 2, 16, 3), scores = view(floats, PS_F32, 4096, 1, 2, 16, 3), out = view(floats, PS_F32, 8192, 1, 2, 16, 3);
  wide = view(floats, PS_F32, 0, 4, 512, 1, 2), other = view(floats, PS_F32, 16384, 4, 512, 1, 2);
  square = view(floats, PS_F32, 32768, 8, 512, 1, 2), product = view(floats, PS_F32, 65536, 4, 8, 1, 2);
  settings = view(floats, PS_F32, 0, 4, 4, 1, 2), draws = view(floats, PS_F32, 0, 4, 1, 1, 1), shares = view(floats, PS_F32, 65536, 4, 2, 1, 2);
  weight = view(floats, PS_F32, 0, 16, 1, 1, 1), halves = view(floats, PS_F32, 4096, 1, 16, 1, 2);
  frequencies = view(floats, PS_F32, 0, 8, 1, 1, 1), turns = view(floats, PS_F32, 65536, 4, 16, 1, 2);
  addend = view(floats, PS_F32, 0, 4, 16, 1, 2), normed = view(floats, PS_F32, 4096, 4, 16, 1, 2);
  blocks = view(floats, PS_Q8_0, 131072, 8, 512, 1, 2), summed = view(floats, PS_F32, 66048, 4, 8, 1, 2);
}

void Scene::close() {
  if (cache) MUST(ps_cache_close(cache) == PS_OK);
  if (numbers) MUST(ps_buffer_close(numbers) == PS_OK);
  if (floats) MUST(ps_buffer_close(floats) == PS_OK);
  if (device) MUST(ps_device_close(device) == PS_OK);
}

/* Quantises rows, for which the library needs memory of its own. */
int32_t write_blocks(Scene &s) {
  static const float zeros[8 * 512] = {};
  return ps_weight_write(s.device, &s.blocks, 0, 8, PS_F32, zeros, sizeof zeros);
}

using Operation = int32_t (*)(Scene &);

const Operation kOperations[] = {
    [](Scene &s) { return ps_append_kv(s.cache, 0, &s.x, &s.x, &s.slots); },
    [](Scene &s) { return ps_append_rotated(s.cache, 0, 1e-6f, &s.weight, &s.weight, &s.halves, &s.halves, &s.x, &s.out, &s.x, &s.slots); },
    [](Scene &s) { return ps_page_statistics(s.cache, 3, 5); },
    [](Scene &s) { return ps_page_score(s.cache, 0, PS_UNIQUE, 0.5f, &s.x, &s.table, &s.lengths, &s.scores); },
    [](Scene &s) { return ps_page_select(s.cache, 1, 2, &s.scores, &s.lengths, &s.selected, &s.counts); },
    [](Scene &s) { return ps_page_choose(s.cache, 0, PS_MEAN, 0, 1, 2, &s.x, &s.table, &s.lengths, &s.scores, &s.selected, &s.counts); },
    [](Scene &s) { return ps_decode_attention(s.cache, 0, 0.25f, 0, &s.x, &s.table, &s.lengths, nullptr, nullptr, &s.out); },
    [](Scene &s) { return ps_decode_attention(s.cache, 0, 0.25f, 0, &s.x, &s.table, &s.lengths, &s.selected, &s.counts, &s.out); },
    [](Scene &s) { return ps_page_mass(s.cache, 0, 0.25f, 0, &s.x, &s.table, &s.lengths, &s.scores); },
    [](Scene &s) {
      return ps_sparse_attention(s.cache, 0, PS_UNIQUE, 0.5f, 1, 2, 0.25f, &s.x, &s.table, &s.lengths, &s.scores, &s.selected, &s.counts, &s.out);
    },
    [](Scene &s) { return ps_prefill_attention(s.cache, 1, 0.25f, 0, 3, &s.x, &s.row, &s.out); },
    [](Scene &s) { return ps_prefill_choose(s.cache, 0, PS_UNIQUE, 0.5f, 1, 2, 0.25f, 64, 128, &s.x, &s.row, &s.selected, &s.counts); },
    [](Scene &s) { return ps_sparse_prefill_attention(s.cache, 0, 0.25f, 64, 128, &s.x, &s.row, &s.selected, &s.counts, &s.out); },
    [](Scene &s) { return ps_matmul(s.device, &s.wide, &s.square, nullptr, &s.product); },
    [](Scene &s) {
      return ps_fused_matmul(s.device, &s.wide, nullptr, 1e-6f, &s.square, nullptr, PS_ADD, nullptr, &s.product, &s.summed, nullptr, nullptr);
    },
    [](Scene &s) { return write_blocks(s); },
    [](Scene &s) { return ps_matmul(s.device, &s.wide, &s.blocks, nullptr, &s.product); },
    [](Scene &s) { return ps_sample(s.device, &s.wide, &s.settings, &s.draws, &s.drawn); },
    [](Scene &s) { return ps_argmax(s.device, &s.wide, &s.drawn); },
    [](Scene &s) { return ps_route_experts(s.device, &s.wide, 1, &s.experts, &s.shares); },
    [](Scene &s) { return ps_scatter_add(s.device, &s.wide, &s.rows, &s.draws, &s.square); },
    [](Scene &s) { return ps_embedding(s.device, &s.rows, &s.square, &s.wide); },
    [](Scene &s) { return ps_rms_norm(s.device, &s.x, &s.weight, 1e-6f, &s.out); },
    [](Scene &s) { return ps_add_rms_norm(s.device, &s.turns, &s.addend, &s.weight, 1e-6f, &s.normed); },
    [](Scene &s) { return ps_rope_table(s.device, &s.rows, &s.frequencies, 1, 0, 0, &s.turns); },
    [](Scene &s) { return ps_rope(s.device, &s.x, &s.halves); },
    [](Scene &s) { return ps_add(s.device, &s.wide, &s.other); },
    [](Scene &s) { return ps_silu_mul(s.device, &s.wide, &s.other, &s.wide); },
    [](Scene &s) { return ps_gelu_mul(s.device, &s.wide, &s.other, &s.wide); },
    [](Scene &s) { return ps_scale(s.device, &s.wide, 0.5f); },
    [](Scene &s) {
      uint32_t word;
      return ps_buffer_scan(s.floats, &word);
    },
    [](Scene &s) {
      uint32_t word;
      const int32_t started = ps_read_start(s.numbers, 0, sizeof word);
      return started == PS_OK ? ps_read_finish(s.device, &word, sizeof word) : started;
    },
    [](Scene &s) {
      ps_counters counters;
      return ps_cache_counters(s.cache, &counters);
    },
    [](Scene &s) {
      float keys[2 * 8 * 16];
      return ps_cache_read(s.cache, 1, 2, PS_FIELD_KEYS, keys, 2 * 8 * 16);
    },
    [](Scene &s) {
      ps_device_info info;
      return ps_device_describe(s.device, &info);
    },
};

/* One operation in which request number `at` fails, counted from the opening of its device, and the same without failures on the same
 * device after it. Whether a request did fail. */
bool run(Operation operation, int64_t at) {
  t_left = at;
  t_failed = false;
  Scene scene;
  if (scene.open()) {
    checked(operation(scene));
    for (const int32_t layer : {-1, 99}) { /* refusals, whose message needs memory too */
      const int32_t status = ps_append_kv(scene.cache, layer, &scene.x, &scene.x, &scene.slots);
      MUST(status == PS_INVALID_ARGUMENT || (t_failed && status == PS_OUT_OF_MEMORY));
    }
    MUST(ps_device_close(scene.device) == PS_INVALID_ARGUMENT);
    t_left = -1;
    MUST(operation(scene) == PS_OK);
  }
  t_left = -1;
  scene.close();
  MUST(ps_live_handles() == 0);
  return t_failed;
}

}  // namespace

int main() {
  int64_t faults = 0;
  for (const Operation operation : kOperations) {
    run(operation, -1);
    int64_t at = 0;
    while (run(operation, at)) at++;
    MUST(at > 10);
    faults += at;
  }
  std::printf("faults %lld statuses %lld\n", static_cast<long long>(faults), static_cast<long long>(g_statuses));
  return 0;
}
