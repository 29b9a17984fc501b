#include "calls.h"

#include <cmath>
#include <cstdio>

namespace {

constexpr int64_t kBufferBytes = 96 * 1024;
constexpr int64_t kLargeBytes = 1 << 20; /* larger buffers are made and closed, but not filled */
constexpr size_t kBuffers = 8, kCaches = 4;

}  // namespace

int64_t Bytes::edge() {
  static const int64_t kEdges[] = {0,
                                   -1,
                                   1,
                                   2,
                                   7,
                                   8,
                                   9,
                                   15,
                                   16,
                                   17,
                                   63,
                                   64,
                                   65,
                                   255,
                                   4095,
                                   INT32_MAX,
                                   INT32_MIN,
                                   int64_t(INT32_MAX) + 1,
                                   int64_t(1) << 45,
                                   int64_t(1) << 46,
                                   int64_t(1) << 53,
                                   INT64_MAX,
                                   INT64_MIN,
                                   -8,
                                   3};
  return kEdges[byte() % (sizeof kEdges / sizeof *kEdges)];
}

float Bytes::number() {
  static const float kNumbers[] = {0, 1, -1, 0.5f, 1e-6f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, 1e-45f, 3e38f};
  return seldom() ? kNumbers[byte() % 12] : float(byte()) / 64 - 1;
}

Calls::Calls(Bytes &bytes) : bytes_(bytes) {
  for (int i = 0; i < 2; i++) {
    const ps_device_options options{0, 2};
    char message[64];
    MUST(ps_device_open(&options, &devices_[i], message, sizeof message) == PS_OK);
    MUST(ps_buffer_create(devices_[i], 64, &anchors_[i]) == PS_OK);
  }
  while (buffers_.size() < kBuffers) make_buffer();
  make_cache();
}

Calls::~Calls() {
  for (ps_cache *cache : caches_) ps_cache_close(cache);
  for (ps_buffer *buffer : buffers_) ps_buffer_close(buffer);
  for (ps_buffer *anchor : anchors_) MUST(ps_buffer_close(anchor) == PS_OK);
  for (ps_device *device : devices_) {
    MUST(ps_device_close(device) == PS_OK);
    MUST(ps_device_close(device) == PS_INVALID_ARGUMENT);
  }
  MUST(ps_live_handles() == 0);
}

void Calls::check(int32_t status) {
  MUST(status >= PS_OK && status < PS_DEVICE_ERROR);
  (status == PS_OK ? accepted : refused)++;
}

void Calls::make_buffer() {
  ps_buffer *made = nullptr;
  const int64_t bytes = bytes_.seldom() ? bytes_.edge() : kBufferBytes;
  const int32_t status = ps_buffer_create(devices_[bytes_.seldom() ? 1 : 0], bytes, &made);
  if (status != PS_OK) return check(status);
  if (bytes > kLargeBytes) return check(ps_buffer_close(made));
  fill(made, bytes);
  if (buffers_.size() < kBuffers) return buffers_.push_back(made);
  ps_buffer *&place = buffers_[size_t(bytes_.below(int(kBuffers)))];
  ps_buffer_close(place);
  place = made;
}

/* Small whole numbers, floats, or words that are wild as either. */
void Calls::fill(ps_buffer *buffer, int64_t bytes) {
  static const int32_t kWild[] = {0, -1, 1, 8, 63, 64, INT32_MAX, INT32_MIN, 0x7f800000, 0x7fc00000, 3, 2};
  const int kind = bytes_.below(7) / 2, start = bytes_.byte();
  std::vector<int32_t> words(size_t(bytes) / 4);
  for (size_t i = 0; i < words.size(); i++) {
    const float value = float(int(i * 37 % 101) - 50) / 25;
    words[i] = kind == 0 ? int32_t(i % 8 + 1) : kind == 1 ? int32_t(i) % 8 : kWild[(i * 7 + size_t(start)) % 12];
    if (kind == 2) std::memcpy(&words[i], &value, 4);
  }
  check(ps_buffer_write(buffer, 0, words.data(), int64_t(words.size()) * 4));
}

/* Mostly small; now and then every field as large as it may be, or close to it. */
ps_cache_desc Calls::describe_cache() {
  static const int32_t kPageSizes[] = {8, 16, 32, 64}, kHeads[] = {1, 2, 4};
  const int32_t heads = kHeads[bytes_.below(2)];
  ps_cache_desc desc{};
  desc.num_pages = bytes_.mostly(8 + 8 * bytes_.below(3));
  desc.max_pages_per_sequence = bytes_.mostly(8);
  desc.num_layers = int32_t(bytes_.mostly(2));
  desc.num_kv_heads = int32_t(bytes_.mostly(heads));
  desc.num_query_heads = int32_t(bytes_.mostly(heads * kHeads[bytes_.below(3)]));
  desc.head_dim = int32_t(bytes_.mostly(16 + 16 * bytes_.below(4)));
  desc.page_size = int32_t(bytes_.mostly(kPageSizes[bytes_.below(4)]));
  desc.dtype = int32_t(bytes_.mostly(bytes_.below(3)));
  desc.statistics = int32_t(bytes_.mostly(3));
  desc.max_sequences = int32_t(bytes_.mostly(4));
  desc.group_pages = int32_t(bytes_.mostly(8 * bytes_.below(2)));
  desc.reserved = int32_t(bytes_.mostly(0));
  if (!bytes_.seldom()) return desc;
  desc.page_size = kPageSizes[bytes_.below(4)];
  desc.num_pages = (INT32_MAX / desc.page_size / 8 * 8) >> bytes_.below(9);
  desc.max_pages_per_sequence = desc.num_pages;
  desc.num_layers = desc.num_query_heads = desc.num_kv_heads = 4096 >> bytes_.below(6);
  desc.head_dim = 512;
  desc.max_sequences = 65536;
  return desc;
}

void Calls::make_cache() {
  const ps_cache_desc desc = describe_cache();
  ps_cache_bytes measured{};
  const int32_t status = ps_cache_measure(devices_[0], &desc, &measured);
  check(status);
  ps_cache *made = nullptr;
  const int32_t made_status = ps_cache_create(devices_[0], &desc, &made);
  check(made_status);
  MUST((made_status == PS_OK) == (made != nullptr));
  MUST(status == PS_OK || made == nullptr);
  if (status != PS_OK) return;
  const double rows = double(desc.num_layers) * desc.num_kv_heads * double(desc.num_pages);
  MUST(double(measured.kv) >= rows * desc.page_size * desc.head_dim * (desc.dtype == PS_F32 ? 8 : 4)); /* as a sum that cannot wrap */
  MUST(measured.statistics > 0 && measured.scratch > 0);
  if (made == nullptr) return;
  if (measured.kv > 64 * kLargeBytes || measured.statistics > 64 * kLargeBytes || measured.scratch > 64 * kLargeBytes) {
    return check(ps_cache_close(made));
  }
  const size_t place = caches_.size() < kCaches ? caches_.size() : size_t(bytes_.below(int(kCaches)));
  if (place < caches_.size()) ps_cache_close(caches_[place]);
  caches_.resize(place < caches_.size() ? caches_.size() : place + 1);
  descs_.resize(caches_.size());
  caches_[place] = made;
  descs_[place] = desc;
}

/* A tensor of the requested shape; now and then with one field of any value, or none at all. */
ps_tensor *Calls::tensor(int32_t dtype, std::initializer_list<int64_t> shape) {
  if (bytes_.seldom()) return nullptr;
  ps_tensor &t = tensors_[used_++ % 16];
  t = ps_tensor{buffer(), 0, 1, {1, 1, 1}, int32_t(shape.size()), dtype};
  int i = 0;
  for (int64_t size : shape) t.shape[i++] = size;
  t.row_stride = int64_t(uint64_t(t.shape[1]) * uint64_t(t.shape[2]));
  if (bytes_.below(3) == 0) t.offset_bytes = 4096 * bytes_.below(16);
  if (!bytes_.seldom()) return &t;
  switch (bytes_.below(7)) {
    case 0: t.offset_bytes = bytes_.edge(); break;
    case 1: t.row_stride = bytes_.edge(); break;
    case 2: t.rank = int32_t(bytes_.edge()); break;
    case 3: t.dtype = int32_t(bytes_.edge()); break;
    default: t.shape[bytes_.below(3)] = bytes_.edge();
  }
  return &t;
}

void Calls::one() {
  const int which = bytes_.below(40);
  used_ = 0;
  if (bytes_.seldom()) bytes_.below(2) ? on_devices() : on_missing();
  else if (which < 10) on_handles(which);
  else if (which < 22) on_tensors(which - 10);
  else on_cache(which - 22);
}
