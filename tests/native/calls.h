/* Every ps_ call with arguments made of bytes: mostly such that it runs, now and then such that it must refuse. */
#pragma once

#include <cstring>
#include <initializer_list>
#include <vector>

#include "support.h"

/* Draws from the input; zeros once it is used up. */
class Bytes {
 public:
  Bytes(const uint8_t *data, size_t size) : data_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  uint8_t byte() {
    if (left_ == 0) return 0;
    left_--;
    return *data_++;
  }
  int below(int limit) { return byte() % limit; }
  bool seldom() { return left_ > 0 && byte() < 6; } /* 2 %, and never at the end of the input */
  int64_t edge();
  int64_t mostly(int64_t usual) { return seldom() ? edge() : usual; }
  float number();

 private:
  const uint8_t *data_;
  size_t left_;
};

/* Handles of all states: open, closed, none. */
class Calls {
 public:
  explicit Calls(Bytes &bytes);
  ~Calls();
  /* One call, whose status must be one of the contract. */
  void one();

  int64_t accepted = 0, refused = 0;

 private:
  void check(int32_t status);
  ps_device *device() { return bytes_.seldom() ? nullptr : devices_[bytes_.seldom() ? 1 : 0]; }
  ps_cache *cache() { return bytes_.seldom() || caches_.empty() ? nullptr : caches_[size_t(bytes_.below(int(caches_.size())))]; }
  ps_buffer *buffer() { return bytes_.seldom() ? nullptr : buffers_[size_t(bytes_.below(int(buffers_.size())))]; }
  ps_tensor *tensor(int32_t dtype, std::initializer_list<int64_t> shape);
  void make_buffer();
  void fill(ps_buffer *buffer, int64_t bytes);
  ps_cache_desc describe_cache();
  void make_cache();
  void on_devices();
  void on_missing();
  void on_handles(int which);
  void on_tensors(int which);
  void write_weight(ps_device *d, int64_t rows);
  void on_cache(int which);
  void append(int which, ps_cache *c, const ps_cache_desc &d, int32_t layer);
  void transfer(ps_cache *c, const ps_cache_desc &d);
  void attend(int which, ps_cache *c, const ps_cache_desc &d, int32_t layer);

  Bytes &bytes_;
  ps_device *devices_[2];
  ps_buffer *anchors_[2]; /* keep the devices open */
  std::vector<ps_buffer *> buffers_;
  std::vector<ps_cache *> caches_;
  std::vector<ps_cache_desc> descs_;
  ps_tensor tensors_[16];
  int used_ = 0;
};
