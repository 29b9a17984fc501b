/* llama.cpp's prebuilt libraries behind a few flat functions, called as its own llama-bench does: one thread calls llama_decode, a
 * pool of threads stays attached. Compiled on the user's machine against the headers of the same release. Errors are negative numbers
 * or null; llama.cpp reports the reason on stderr. */
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "llama.h"

namespace {

struct Context {
  llama_context *context;
  ggml_threadpool_t pool;
  void (*free_pool)(ggml_threadpool_t);
  int32_t batch_tokens;
  int32_t length;
};

template <typename Function>
Function cpu_function(const char *name) {
  ggml_backend_reg_t cpu = ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
  return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(cpu, name));
}

ggml_type type_of(int32_t kv) { return kv == 0 ? GGML_TYPE_F16 : kv == 1 ? GGML_TYPE_BF16 : GGML_TYPE_F32; }

void log_errors(ggml_log_level level, const char *text, void *) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

}  // namespace

#define SHIM extern "C" __attribute__((visibility("default")))

/* folder: contains the prebuilt backends. gpu_layers: 0 keeps all layers on the CPU. */
SHIM llama_model *shim_load(const char *folder, const char *gguf, int32_t gpu_layers) {
  llama_log_set(log_errors, nullptr);
  ggml_backend_load_all_from_path(folder);
  llama_backend_init();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = gpu_layers;
  params.load_mode = LLAMA_LOAD_MODE_NONE; /* reads the file instead of mapping it */
  return llama_model_load_from_file(gguf, params);
}

/* Writes another file of the model whose matrices have one format; ftype is a llama_ftype. */
SHIM int32_t shim_quantize(const char *folder, const char *gguf, const char *target, int32_t ftype) {
  llama_log_set(log_errors, nullptr);
  ggml_backend_load_all_from_path(folder);
  llama_backend_init();
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = static_cast<llama_ftype>(ftype);
  params.nthread = 2;
  return static_cast<int32_t>(llama_model_quantize(gguf, target, &params));
}

SHIM const char *shim_system() { return llama_print_system_info(); }

SHIM int32_t shim_vocabulary(const llama_model *model) { return llama_vocab_n_tokens(llama_model_get_vocab(model)); }

/* kv: 0 f16, 1 bf16, 2 f32 */
SHIM Context *shim_open(llama_model *model, int32_t context_tokens, int32_t batch_tokens, int32_t threads, int32_t flash, int32_t kv) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = context_tokens;
  params.n_batch = params.n_ubatch = batch_tokens;
  params.n_threads = params.n_threads_batch = threads;
  params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = params.type_v = type_of(kv);
  llama_context *context = llama_init_from_model(model, params);
  if (context == nullptr) return nullptr;
  const auto new_pool = cpu_function<decltype(&ggml_threadpool_new)>("ggml_threadpool_new");
  const auto free_pool = cpu_function<decltype(&ggml_threadpool_free)>("ggml_threadpool_free");
  ggml_threadpool_params pool_params = ggml_threadpool_params_default(threads);
  ggml_threadpool_t pool = new_pool ? new_pool(&pool_params) : nullptr;
  if (pool) llama_attach_threadpool(context, pool, pool);
  return new Context{context, pool, free_pool, batch_tokens, 0};
}

SHIM void shim_close(Context *c) {
  llama_free(c->context);
  if (c->pool) c->free_pool(c->pool);
  delete c;
}

SHIM int32_t shim_threads(const Context *c) { return llama_n_threads(c->context); }

/* Appends ids after the first `at` tokens, in batches; the logits of the last one are stored. */
SHIM int32_t shim_append(Context *c, int32_t at, const int32_t *ids, int32_t count) {
  if (at > c->length) return -1;
  if (at < c->length && !llama_memory_seq_rm(llama_get_memory(c->context), 0, at, -1)) return -2;
  c->length = at;
  for (int32_t first = 0; first < count; first += c->batch_tokens) {
    const int32_t tokens = count - first < c->batch_tokens ? count - first : c->batch_tokens;
    if (llama_decode(c->context, llama_batch_get_one(const_cast<llama_token *>(ids) + first, tokens)) != 0) return -3;
    c->length += tokens;
  }
  llama_synchronize(c->context);
  return 0;
}

/* As shim_append, one token per call of llama_decode, waiting after each. */
SHIM int32_t shim_decode(Context *c, int32_t at, const int32_t *ids, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    const int32_t status = shim_append(c, at + i, ids + i, 1);
    if (status != 0) return status;
  }
  return 0;
}

/* The logits of the last call, [vocabulary]. */
SHIM int32_t shim_logits(Context *c, float *out, int32_t vocabulary) {
  const float *logits = llama_get_logits_ith(c->context, -1);
  if (logits == nullptr) return -1;
  std::memcpy(out, logits, size_t(vocabulary) * sizeof(float));
  return 0;
}

/* The number of ids of a text, at most `most` of which are written. */
SHIM int32_t shim_tokenize(const llama_model *model, const char *text, int32_t bytes, int32_t *ids, int32_t most) {
  return llama_tokenize(llama_model_get_vocab(model), text, bytes, ids, most, false, false);
}
