/* A CUDA runtime for a GPU that is not there: an H200, whose memory is in memory.c.
 *
 * Kernels are not run. Every allocation, copy, launch and capture is a line of the file that PRETENDED_CUDA_LOG names:
 *
 *   MALLOC bytes allocated | FREE bytes allocated | HOSTALLOC bytes
 *   COPY H2D|D2H|D2D|H2H|ANY bytes | SET bytes
 *   KERNEL mangled_name | LIBRARY function
 *   SYNC stream|device|event | CAPTURE begin|end | GRAPHLAUNCH
 *
 * What is not here returns success and does nothing: see build.py.
 */
#define _GNU_SOURCE
#include "pretended.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <search.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPUTE_MAJOR 9
#define COMPUTE_MINOR 0
#define VERSION (CUDART_VERSION / 1000 * 1000) /* the oldest of the headers' generation */
#define MULTIPROCESSORS 132
#define SHARED_BYTES 49152
#define SHARED_BYTES_AT_MOST 232448 /* that a block may ask for */
#define SHARED_BYTES_PER_MULTIPROCESSOR 233472
#define REGISTERS 65536
#define L2_BYTES 62914560

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The log */

static FILE *log_file;

__attribute__((constructor)) static void open_log(void) {
  const char *path = getenv("PRETENDED_CUDA_LOG");
  if (path != NULL) log_file = fopen(path, "w");
}

void pretended_cuda_log(const char *format, ...) {
  if (log_file == NULL) return;
  va_list values;
  va_start(values, format);
  pthread_mutex_lock(&lock);
  vfprintf(log_file, format, values);
  fputc('\n', log_file);
  fflush(log_file);
  pthread_mutex_unlock(&lock);
  va_end(values);
}

/* Handles: streams, events, graphs and pools are an address, and nobody looks behind it. */

static cudaError_t create(void **handle) {
  *handle = malloc(1);
  return *handle == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
}

static cudaError_t destroy(void *handle) {
  free(handle);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return create((void **)stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return create((void **)stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy(stream); }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return create((void **)event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return create((void **)event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event); }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties) {
  return create((void **)pool);
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) { return destroy(pool); }

/* Kernels: a program registers the names of its functions when it is loaded. */

typedef struct {
  const void *function;
  const char *name;
} Kernel;

static void *kernels; /* a tree of Kernel, for tsearch */

static int compare(const void *left, const void *right) {
  uintptr_t a = (uintptr_t)((const Kernel *)left)->function;
  uintptr_t b = (uintptr_t)((const Kernel *)right)->function;
  return (a > b) - (a < b);
}

static const char *name_of(const void *function) {
  Kernel wanted = {function, NULL};
  Kernel **found = tfind(&wanted, &kernels, compare);
  return found == NULL ? "unknown" : (*found)->name;
}

void **__cudaRegisterFatBinary(void *binary) {
  static void *handle[1];
  return handle;
}

void __cudaRegisterFunction(void **binary, const char *function, char *device_function, const char *name, int threads,
                            void *thread, void *block, void *block_size, void *grid_size, int *warp_size) {
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) abort();
  *kernel = (Kernel){function, name};
  pthread_mutex_lock(&lock);
  tsearch(kernel, &kernels, compare);
  pthread_mutex_unlock(&lock);
}

/* The numbers between <<< and >>> wait here for the launch. */
typedef struct {
  dim3 grid, block;
  size_t shared_bytes;
  void *stream;
} Configuration;

static __thread Configuration waiting[16];
static __thread int waiting_count;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void *stream) {
  waiting[waiting_count++] = (Configuration){grid, block, shared_bytes, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream) {
  Configuration last = waiting[--waiting_count];
  *grid = last.grid;
  *block = last.block;
  *shared_bytes = last.shared_bytes;
  *(void **)stream = last.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  *kernel = (cudaKernel_t)function;
  return cudaSuccess;
}

static cudaError_t launch(const void *function) {
  pretended_cuda_log("KERNEL %s", name_of(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                               cudaStream_t stream) {
  return launch(kernel);
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                             cudaStream_t stream) {
  return launch(function);
}

cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **arguments,
                                        size_t shared_bytes, cudaStream_t stream) {
  return launch(function);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *configuration, const void *function, void **arguments) {
  return launch(function);
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *options, void **values,
                                unsigned count, enum cudaLibraryOption *library_options, void **library_values,
                                unsigned library_count) {
  return create((void **)library);
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library) { return destroy(library); }

cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name) {
  void *function;
  cudaError_t error = create(&function);
  if (error != cudaSuccess) return error;
  *kernel = (cudaKernel_t)function;
  __cudaRegisterFunction(NULL, function, NULL, strdup(name), 0, NULL, NULL, NULL, NULL, NULL);
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  function(data);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
  *attributes = (struct cudaFuncAttributes){
      .maxThreadsPerBlock = 1024,
      .numRegs = 64,
      .binaryVersion = COMPUTE_MAJOR * 10 + COMPUTE_MINOR,
      .ptxVersion = COMPUTE_MAJOR * 10 + COMPUTE_MINOR,
      .maxDynamicSharedSizeBytes = SHARED_BYTES_AT_MOST,
  };
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                                   size_t shared_bytes, unsigned flags) {
  *blocks = 2;
  return cudaSuccess;
}

/* The device */

cudaError_t cudaGetDeviceCount(int *count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
  *properties = (struct cudaDeviceProp){
      .name = "pretended H200",
      .totalGlobalMem = DEVICE_BYTES,
      .sharedMemPerBlock = SHARED_BYTES,
      .sharedMemPerBlockOptin = SHARED_BYTES_AT_MOST,
      .sharedMemPerMultiprocessor = SHARED_BYTES_PER_MULTIPROCESSOR,
      .regsPerBlock = REGISTERS,
      .regsPerMultiprocessor = REGISTERS,
      .warpSize = 32,
      .maxThreadsPerBlock = 1024,
      .maxThreadsPerMultiProcessor = 2048,
      .maxBlocksPerMultiProcessor = 32,
      .maxThreadsDim = {1024, 1024, 64},
      .maxGridSize = {2147483647, 65535, 65535},
      .totalConstMem = 65536,
      .major = COMPUTE_MAJOR,
      .minor = COMPUTE_MINOR,
      .multiProcessorCount = MULTIPROCESSORS,
      .l2CacheSize = L2_BYTES,
      .textureAlignment = 512,
      .concurrentKernels = 1,
      .cooperativeLaunch = 1,
      .memoryPoolsSupported = 1,
      .unifiedAddressing = 1,
  };
  return cudaSuccess;
}

static const int attributes[] = {
    [cudaDevAttrComputeCapabilityMajor] = COMPUTE_MAJOR,
    [cudaDevAttrComputeCapabilityMinor] = COMPUTE_MINOR,
    [cudaDevAttrMultiProcessorCount] = MULTIPROCESSORS,
    [cudaDevAttrMaxThreadsPerBlock] = 1024,
    [cudaDevAttrMaxThreadsPerMultiProcessor] = 2048,
    [cudaDevAttrMaxBlocksPerMultiprocessor] = 32,
    [cudaDevAttrWarpSize] = 32,
    [cudaDevAttrMaxSharedMemoryPerBlock] = SHARED_BYTES,
    [cudaDevAttrMaxSharedMemoryPerBlockOptin] = SHARED_BYTES_AT_MOST,
    [cudaDevAttrMaxSharedMemoryPerMultiprocessor] = SHARED_BYTES_PER_MULTIPROCESSOR,
    [cudaDevAttrMaxRegistersPerBlock] = REGISTERS,
    [cudaDevAttrMaxRegistersPerMultiprocessor] = REGISTERS,
    [cudaDevAttrL2CacheSize] = L2_BYTES,
    [cudaDevAttrCooperativeLaunch] = 1,
    [cudaDevAttrMemoryPoolsSupported] = 1,
};

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  *value = attribute < sizeof attributes / sizeof *attributes ? attributes[attribute] : 0;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
  *function = NULL;
  if (result != NULL) *result = cudaDriverEntryPointSymbolNotFound;
  return cudaErrorSymbolNotFound;
}

const char *cudaGetErrorName(cudaError_t error) { return "an error of the pretended CUDA"; }
const char *cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

/* Waiting and capturing */

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  pretended_cuda_log("SYNC stream");
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
  pretended_cuda_log("SYNC device");
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  pretended_cuda_log("SYNC event");
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = 1;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  pretended_cuda_log("CAPTURE begin");
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  pretended_cuda_log("CAPTURE end");
  return create((void **)graph);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
  return create((void **)executable);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  pretended_cuda_log("GRAPHLAUNCH");
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return destroy(executable); }
