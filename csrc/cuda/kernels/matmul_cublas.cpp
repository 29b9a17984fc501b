/* cuBLAS through dlopen: the build needs neither its headers nor the library. Names, types and numbers are those of cublas_api.h of CUDA 13. */
#include "matmul_cublas.h"

#include "../cublas_library.h"

#include <dlfcn.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace ps {

namespace {

using Handle = void *;
using Status = int32_t;

constexpr Status kSuccess = 0, kAllocationFailed = 3;
constexpr int32_t kTransposed = 1, kAsStored = 0;    /* cublasOperation_t */
constexpr int32_t kComputeF32 = 68, kAnyAlgorithm = -1; /* CUBLAS_COMPUTE_32F (no TF32), CUBLAS_GEMM_DEFAULT */
constexpr size_t kWorkspaceBytes = size_t(32) << 20; /* what cuBLAS asks for on Hopper; its own could not be recorded in graphs */

}  // namespace

struct Cublas {
  int device = 0;
  Handle handle = nullptr;
  void *workspace = nullptr;
  Status (*create)(Handle *) = nullptr;
  Status (*set_stream)(Handle, cudaStream_t) = nullptr;
  Status (*set_workspace)(Handle, void *, size_t) = nullptr;
  Status (*gemm)(Handle, int32_t op_a, int32_t op_b, int m, int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                 const void *b, cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc, int32_t compute,
                 int32_t algorithm) = nullptr;

  Cublas() = default;
  Cublas(const Cublas &) = delete;
  Cublas &operator=(const Cublas &) = delete;
  ~Cublas();
};

namespace {

/* Handles whose device was closed, for the next one that is opened on the same GPU. They are never destroyed, nor is the library
 * unloaded: cublasDestroy waits for the whole GPU, and that breaks off what another thread is just recording there. */
class IdleHandles {
 public:
  Handle take(int device) {
    const std::lock_guard<std::mutex> guard(lock_);
    for (size_t i = 0; i < idle_.size(); i++) {
      if (idle_[i].first != device) continue;
      const Handle handle = idle_[i].second;
      idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
      return handle;
    }
    return nullptr;
  }
  void give(int device, Handle handle) {
    const std::lock_guard<std::mutex> guard(lock_);
    idle_.emplace_back(device, handle);
  }

 private:
  std::mutex lock_;
  std::vector<std::pair<int, Handle>> idle_;
};

IdleHandles &idle_handles() {
  static IdleHandles *const handles = new IdleHandles; /* outlives every device, also at exit */
  return *handles;
}

}  // namespace

Cublas::~Cublas() {
  if (handle) {
    set_stream(handle, nullptr); /* ours is about to go, the workspace too */
    idle_handles().give(device, handle);
  }
  if (workspace) cudaFree(workspace);
}

void close_cublas(Cublas *cublas) { delete cublas; }

namespace {

template <typename Function>
void find(void *library, const char *name, Function &out) {
  out = reinterpret_cast<Function>(dlsym(library, name));
  if (!out) fail_to_load_cublas(std::string("it has no ") + name);
}

void check_cublas(Status status, const std::string &attempted) {
  if (status == kSuccess) return;
  throw Error(status == kAllocationFailed ? PS_OUT_OF_MEMORY : PS_DEVICE_ERROR,
              "cuBLAS failed with status " + std::to_string(status) + ": " + attempted);
}

Cublas *open_cublas(Backend &backend) {
  void *library = open_cublas_library();
  auto cublas = std::make_unique<Cublas>();
  find(library, "cublasCreate_v2", cublas->create);
  find(library, "cublasSetStream_v2", cublas->set_stream);
  find(library, "cublasSetWorkspace_v2", cublas->set_workspace);
  find(library, "cublasGemmEx", cublas->gemm);
  cublas->device = backend.index;
  cublas->handle = idle_handles().take(backend.index);
  if (!cublas->handle) check_cublas(cublas->create(&cublas->handle), "could not create a handle");
  check_cuda(cudaMalloc(&cublas->workspace, kWorkspaceBytes), "Could not allocate 32 MiB for cuBLAS");
  check_cublas(cublas->set_stream(cublas->handle, backend.stream), "could not set the stream"); /* resets the workspace: comes first */
  check_cublas(cublas->set_workspace(cublas->handle, cublas->workspace, kWorkspaceBytes), "could not set the workspace");
  return cublas.release();
}

cudaDataType data_type(ps_dtype dtype) { return dtype == PS_F32 ? CUDA_R_32F : dtype == PS_F16 ? CUDA_R_16F : CUDA_R_16BF; }

int to_int(int64_t number) {
  if (number > INT32_MAX) throw Error(PS_UNSUPPORTED, "cuBLAS takes sizes and strides up to 2147483647, got " + std::to_string(number));
  return static_cast<int>(number);
}

/* A single row may have any stride, but cuBLAS requires one that is no shorter than the row. */
int leading_dimension(int64_t stride, int64_t width) { return to_int(stride < width ? width : stride); }

}  // namespace

void require_cublas() { open_cublas_library(); }

void matmul_cublas(Backend &backend, const MatmulParams &params, const Typed &x) {
  const int tokens = to_int(params.tokens), inputs = to_int(params.inputs), outputs = to_int(params.outputs);
  if (!backend.cublas) backend.cublas = open_cublas(backend);
  const Cublas &cublas = *backend.cublas;
  const float one = 1, zero = 0;
  const cudaDataType type = data_type(params.weight.dtype);
  /* cuBLAS counts columns first, so to it our rows are columns: out^T [outputs, tokens] = weight [outputs, inputs] * x^T. */
  forget_rows(backend); /* as a launch does, which this is not */
  const Status status = cublas.gemm(cublas.handle, kTransposed, kAsStored, outputs, tokens, inputs, &one, params.weight.data, type,
                                    leading_dimension(params.weight.stride, inputs), x.data, type, leading_dimension(x.stride, inputs), &zero,
                                    params.out.data, CUDA_R_32F, leading_dimension(params.out.stride, outputs), kComputeF32, kAnyAlgorithm);
  if (status != kSuccess) {
    check_cublas(status, "product of [" + std::to_string(tokens) + ", " + std::to_string(inputs) + "] with weights [" + std::to_string(outputs) +
                             ", " + std::to_string(inputs) + "]");
  }
}

}  // namespace ps
