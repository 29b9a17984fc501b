/* The CUDA build of csrc/backend.h: device, memory, recorded work. The operations are in kernels/, one per file. */
#include "backend.h"

#include "../block_formats.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace ps {

const ps_backend kBackendKind = PS_BACKEND_CUDA;
const bool kKeepsGroups = true;

namespace {

const char *const kIndexNames[] = {"", "ids", "rows", "slots", "page_table", "lengths", "selected", "counts"};
constexpr int kOldestCapability = 80;
constexpr int32_t kNoToken = -1; /* of ps_argmax and ps_sample */
constexpr int64_t kSmallBytes = 4096; /* of a copy to the GPU that goes through page-locked memory */

bool is_out_of_memory(cudaError_t status) { return status == cudaErrorMemoryAllocation; }

/* Failures after which no call on the device can work again. */
bool is_sticky(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

[[noreturn]] void refuse_device(cudaError_t status) {
  std::string text = cudaGetErrorString(status);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    text = driver == 0 ? "No NVIDIA driver is installed"
                       : "The NVIDIA driver serves CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                             ", expected 13.0 or newer; update it";
  } else if (status == cudaErrorNoDevice) {
    text = "No NVIDIA GPU is there, or CUDA_VISIBLE_DEVICES hides it";
  }
  throw Error(PS_NO_DEVICE, text + "; --device cpu works without");
}

/* The number that a kernel has refused since the last look, or {}: later kernels may still run, and one of them may be noting one. */
BadIndex noted(const Backend &backend) {
  const volatile BadIndex &bad = *backend.bad_index;
  const int32_t array = bad.array;
  if (array <= kNoArray) return {};
  std::atomic_thread_fence(std::memory_order_acquire);
  return {array, bad.place, bad.value, bad.limit};
}

/* Reports that number. */
void check_bad_index(Backend &backend) {
  const BadIndex bad = noted(backend);
  if (bad.array == kNoArray) return;
  *backend.bad_index = {};
  if (bad.array == kLatePeer) {
    throw Error(PS_DEVICE_ERROR, "GPU " + std::to_string(bad.place) + " waited in vain for GPU " + std::to_string(bad.value) +
                                     " to add up what both computed; start the program again, and check the GPU with nvidia-smi");
  }
  const bool counts_from_one = bad.array == kLengths || bad.array == kCounts;
  throw Error(PS_INVALID_ARGUMENT, std::string(kIndexNames[bad.array]) + "[" + std::to_string(bad.place) + "] is " + std::to_string(bad.value) +
                                       ", expected " +
                                       (counts_from_one ? "1 to " + std::to_string(bad.limit) : "0 to " + std::to_string(bad.limit - 1)) +
                                       (bad.array == kLengths ? " tokens" : ""));
}

void synchronize(Backend &backend) {
  backend.written.clear();
  check_cuda(cudaStreamSynchronize(backend.stream), "Could not finish the work on the GPU");
  backend.outbox_bytes = 0;
}

void wait(Backend &backend) {
  synchronize(backend);
  check_bad_index(backend);
}

/* Keeps what a small copy to the GPU reads until the GPU has read it. */
const void *post(Backend &backend, const void *source, int64_t bytes) {
  if (backend.outbox_bytes + bytes > kStagingBytes) synchronize(backend);
  char *posted = backend.outbox + backend.outbox_bytes;
  std::memcpy(posted, source, static_cast<size_t>(bytes));
  backend.outbox_bytes += bytes;
  return posted;
}

void enter(Backend &backend) {
  check_cuda(cudaSetDevice(backend.index), "Could not use the GPU");
  forget_rows(backend);
}

}  // namespace

void check_cuda(cudaError_t status, const char *what) {
  if (status == cudaSuccess) return;
  cudaGetLastError(); /* so that the next call does not report it again */
  const std::string text = std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
  if (is_out_of_memory(status)) throw Error(PS_OUT_OF_MEMORY, text);
  if (is_sticky(status)) throw Error(PS_DEVICE_ERROR, text + "; the GPU's state is lost, start the program again");
  throw Error(PS_INTERNAL, text);
}

bool note_written(Backend &backend, const CacheView &cache, int32_t layer) {
  bool at_rest = true;
  for (const WrittenLayer &one : backend.written) {
    at_rest &= one.keys != cache.keys || (one.layer != layer && one.layer != kAllLayers && layer != kAllLayers);
  }
  if (at_rest || layer == kAllLayers) backend.written.push_back({cache.keys, layer});
  return at_rest;
}

void *scratch(Backend &backend, int64_t bytes) {
  if (bytes <= backend.scratch_bytes) return backend.scratch_blocks.back();
  const int64_t wanted = bytes > 2 * backend.scratch_bytes ? bytes : 2 * backend.scratch_bytes;
  void *block = nullptr;
  check_cuda(cudaMalloc(&block, static_cast<size_t>(wanted)), "Could not allocate scratch memory on the GPU; use a smaller batch or context");
  backend.scratch_blocks.push_back(block);
  backend.scratch_bytes = wanted;
  return block;
}

Backend *backend_open(const ps_device_options &options) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) refuse_device(status);
  if (options.index < 0 || options.index >= count) {
    throw Error(PS_NO_DEVICE, "There is no GPU number " + std::to_string(options.index) + "; this machine has " + std::to_string(count));
  }
  require_cublas();
  auto backend = std::make_unique<Backend>();
  backend->index = options.index;
  enter(*backend);
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, options.index), "Could not describe the GPU");
  backend->capability = properties.major * 10 + properties.minor;
  if (backend->capability < kOldestCapability) {
    throw Error(PS_NO_DEVICE, std::string(properties.name) + " has compute capability " + std::to_string(properties.major) + "." +
                                  std::to_string(properties.minor) + ", expected 8.0 or newer; use --device cpu");
  }
  backend->multiprocessors = properties.multiProcessorCount;
  backend->shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  std::string(properties.name).copy(backend->name, sizeof backend->name - 1);
  check_cuda(cudaStreamCreateWithFlags(&backend->stream, cudaStreamNonBlocking), "Could not open a stream on the GPU");
  check_cuda(cudaHostAlloc(reinterpret_cast<void **>(&backend->bad_index), sizeof(BadIndex), cudaHostAllocMapped),
             "Could not allocate page-locked memory");
  *backend->bad_index = {};
  check_cuda(cudaHostAlloc(&backend->staging, kStagingBytes, cudaHostAllocDefault), "Could not allocate page-locked memory");
  check_cuda(cudaHostAlloc(reinterpret_cast<void **>(&backend->outbox), kStagingBytes, cudaHostAllocDefault),
             "Could not allocate page-locked memory");
  check_cuda(cudaHostAlloc(reinterpret_cast<void **>(&backend->letters), kMostLetters * kLetterBytes, cudaHostAllocDefault),
             "Could not allocate page-locked memory");
  return backend.release();
}

void backend_close(Backend *backend) {
  cudaSetDevice(backend->index);
  cudaStreamSynchronize(backend->stream);
  if (backend->cublas) close_cublas(backend->cublas);
  for (void *block : backend->scratch_blocks) cudaFree(block);
  cudaFreeHost(backend->staging);
  cudaFreeHost(backend->outbox);
  cudaFreeHost(backend->letters);
  for (cudaEvent_t event : backend->arrived) {
    if (event) cudaEventDestroy(event);
  }
  for (void *memory : backend->transfer) cudaFreeHost(memory);
  for (cudaEvent_t event : backend->transferred) {
    if (event) cudaEventDestroy(event);
  }
  cudaFreeHost(backend->bad_index);
  cudaStreamDestroy(backend->stream);
  delete backend;
}

void backend_describe(Backend &backend, ps_device_info &out) {
  enter(backend);
  size_t free_bytes = 0, total_bytes = 0;
  check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes), "Could not read how much memory the GPU has");
  out.total_bytes = static_cast<int64_t>(total_bytes);
  out.available_bytes = static_cast<int64_t>(free_bytes);
  out.records = 1;
  out.capability = backend.capability;
  std::memcpy(out.name, backend.name, sizeof out.name);
}

void backend_wait(Backend &backend) {
  enter(backend); /* on whatever thread the caller waits */
  wait(backend);
}

void *memory_allocate(Backend &backend, int64_t bytes) {
  enter(backend);
  void *memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (is_out_of_memory(status)) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    throw Error(PS_OUT_OF_MEMORY, "Out of GPU memory: " + std::to_string(bytes) + " bytes needed, " + std::to_string(free_bytes) + " of " +
                                      std::to_string(total_bytes) + " free");
  }
  check_cuda(status, "Could not allocate GPU memory");
  check_cuda(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), backend.stream), "Could not clear GPU memory");
  return memory;
}

void memory_free(Backend &backend, void *memory, int64_t) {
  cudaSetDevice(backend.index);
  cudaStreamSynchronize(backend.stream);
  cudaFree(memory);
}

void memory_write(Backend &backend, void *target, const void *source, int64_t bytes) {
  enter(backend);
  /* Returns when the source may be used again; the copy takes its turn on the stream. The system takes 20 us to copy a few numbers from
   * pageable memory, which a decode step would wait for. */
  if (bytes <= kSmallBytes) source = post(backend, source, bytes);
  check_cuda(cudaMemcpyAsync(target, source, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, backend.stream), "Could not copy to the GPU");
  backend.written.clear();
}

void memory_read(Backend &backend, void *target, const void *source, int64_t bytes) {
  enter(backend);
  void *landing = bytes <= kStagingBytes ? backend.staging : target;
  check_cuda(cudaMemcpyAsync(landing, source, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, backend.stream), "Could not copy from the GPU");
  wait(backend);
  if (landing != target) std::memcpy(target, landing, static_cast<size_t>(bytes));
}

void memory_read_start(Backend &backend, const void *source, int64_t bytes) {
  enter(backend);
  const unsigned place = backend.started_letters % kMostLetters;
  if (backend.arrived[place] == nullptr) {
    check_cuda(cudaEventCreateWithFlags(&backend.arrived[place], cudaEventDisableTiming), "Could not create an event");
  }
  check_cuda(cudaMemcpyAsync(backend.letters + place * kLetterBytes, source, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, backend.stream),
             "Could not copy from the GPU");
  check_cuda(cudaEventRecord(backend.arrived[place], backend.stream), "Could not copy from the GPU");
  backend.written.clear();
  backend.started_letters++;
}

void memory_read_finish(Backend &backend, void *target, int64_t bytes) {
  enter(backend);
  const unsigned place = backend.finished_letters++ % kMostLetters;
  check_cuda(cudaEventSynchronize(backend.arrived[place]), "Could not finish the work on the GPU");
  std::memcpy(target, backend.letters + place * kLetterBytes, static_cast<size_t>(bytes));
  if (const BadIndex bad = noted(backend); bad.array == kIds && bad.value == kNoToken) *backend.bad_index = {};
  check_bad_index(backend);
}

void run_on_host(Backend &, int64_t count, const std::function<void(int64_t)> &task) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t index = next++; index < count; index = next++) task(index);
  };
  std::vector<std::future<void>> others;
  const int64_t threads = std::min(count, int64_t(std::thread::hardware_concurrency()));
  try {
    for (int64_t i = 1; i < threads; i++) others.push_back(std::async(std::launch::async, work));
  } catch (const std::system_error &) { /* the system refuses more threads: those there are do all of it */
  }
  work();
  for (auto &other : others) other.get();
}

namespace {

void prepare_transfer(Backend &backend) {
  for (int half = 0; half < 2; half++) {
    if (backend.transfer[half] == nullptr) {
      check_cuda(cudaHostAlloc(&backend.transfer[half], kTransferBytes, cudaHostAllocDefault), "Could not allocate page-locked memory");
    }
    if (backend.transferred[half] == nullptr) {
      check_cuda(cudaEventCreateWithFlags(&backend.transferred[half], cudaEventDisableTiming), "Could not create an event");
    }
  }
}

/* Part of a copy of rows that fits one half of the transfer memory. */
struct Part {
  int64_t row, column, width, rows;
};

/* Calls use(part, half) for all parts of rows of `width` bytes, the halves in turn. */
template <typename Use>
void for_every_part(int64_t width, int64_t rows, Use &&use) {
  int half = 0;
  for (int64_t column = 0; column < width; column += kTransferBytes) {
    const int64_t columns = std::min(width - column, kTransferBytes), most = kTransferBytes / columns;
    for (int64_t row = 0; row < rows; row += most, half ^= 1) use(Part{row, column, columns, std::min(most, rows - row)}, half);
  }
}

void copy_rows(void *target, int64_t target_pitch, const void *source, int64_t source_pitch, const Part &part) {
  for (int64_t row = 0; row < part.rows; row++) {
    std::memcpy(static_cast<char *>(target) + row * target_pitch, static_cast<const char *>(source) + row * source_pitch,
                static_cast<size_t>(part.width));
  }
}

}  // namespace

/* The GPU copies one half while the other is filled. */
void memory_write_rows(Backend &backend, void *target, int64_t target_pitch, const void *source, int64_t source_pitch, int64_t width, int64_t rows) {
  enter(backend);
  prepare_transfer(backend);
  for_every_part(width, rows, [&](const Part &part, int half) {
    check_cuda(cudaEventSynchronize(backend.transferred[half]), "Could not copy to the GPU");
    copy_rows(backend.transfer[half], part.width, static_cast<const char *>(source) + part.row * source_pitch + part.column, source_pitch, part);
    check_cuda(cudaMemcpy2DAsync(static_cast<char *>(target) + part.row * target_pitch + part.column, static_cast<size_t>(target_pitch),
                                 backend.transfer[half], static_cast<size_t>(part.width), static_cast<size_t>(part.width),
                                 static_cast<size_t>(part.rows), cudaMemcpyHostToDevice, backend.stream),
               "Could not copy to the GPU");
    check_cuda(cudaEventRecord(backend.transferred[half], backend.stream), "Could not copy to the GPU");
  });
}

/* The GPU copies one half while the other is emptied. */
void memory_read_rows(Backend &backend, void *target, int64_t target_pitch, const void *source, int64_t source_pitch, int64_t width, int64_t rows) {
  enter(backend);
  prepare_transfer(backend);
  Part started[2] = {};
  auto finish = [&](int half) {
    const Part &part = started[half];
    if (part.rows == 0) return;
    check_cuda(cudaEventSynchronize(backend.transferred[half]), "Could not copy from the GPU");
    copy_rows(static_cast<char *>(target) + part.row * target_pitch + part.column, target_pitch, backend.transfer[half], part.width, part);
    started[half] = {};
  };
  for_every_part(width, rows, [&](const Part &part, int half) {
    finish(half);
    check_cuda(cudaMemcpy2DAsync(backend.transfer[half], static_cast<size_t>(part.width),
                                 static_cast<const char *>(source) + part.row * source_pitch + part.column, static_cast<size_t>(source_pitch),
                                 static_cast<size_t>(part.width), static_cast<size_t>(part.rows), cudaMemcpyDeviceToHost, backend.stream),
               "Could not copy from the GPU");
    check_cuda(cudaEventRecord(backend.transferred[half], backend.stream), "Could not copy from the GPU");
    started[half] = part;
  });
  finish(0);
  finish(1);
}

void graph_begin(Backend &backend) {
  enter(backend);
  backend.written.clear();
  check_cuda(cudaStreamBeginCapture(backend.stream, cudaStreamCaptureModeRelaxed), "Could not begin recording");
}

void *graph_end(Backend &backend) {
  backend.written.clear();
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(backend.stream, &graph), "Could not record the operations");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(status, "Could not prepare the recorded operations");
  /* Now, because a launch that prepares memory could wait for another GPU, whose recorded sums wait for this launch. */
  if (const cudaError_t uploaded = cudaGraphUpload(executable, backend.stream); uploaded != cudaSuccess) {
    cudaGraphExecDestroy(executable);
    check_cuda(uploaded, "Could not prepare the recorded operations");
  }
  return executable;
}

void graph_launch(Backend &backend, void *graph) {
  enter(backend);
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), backend.stream), "Could not launch the recorded operations");
  backend.written.clear();
}

void graph_close(Backend &backend, void *graph) {
  cudaSetDevice(backend.index);
  cudaStreamSynchronize(backend.stream);
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace ps
