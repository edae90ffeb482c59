/* The memory of the pretended GPU: host memory, which takes pages only where it is written. Copies are made. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pretended.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct Allocation {
  char *begin;
  size_t bytes;
  struct Allocation *next;
} Allocation;

static Allocation *allocations;
static long long allocated;

cudaError_t cudaMalloc(void **address, size_t bytes) {
  *address = NULL;
  size_t mapped = bytes == 0 ? 1 : bytes;
  if (allocated + (long long)bytes > DEVICE_BYTES) return cudaErrorMemoryAllocation;
  void *begin = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  Allocation *allocation = malloc(sizeof *allocation);
  if (begin == MAP_FAILED || allocation == NULL) return cudaErrorMemoryAllocation;
  pthread_mutex_lock(&lock);
  *allocation = (Allocation){begin, mapped, allocations};
  allocations = allocation;
  long long now = allocated += mapped;
  pthread_mutex_unlock(&lock);
  pretended_cuda_log("MALLOC %zu %lld", mapped, now);
  *address = begin;
  return cudaSuccess;
}

cudaError_t cudaFree(void *address) {
  pthread_mutex_lock(&lock);
  Allocation **link = &allocations;
  while (*link != NULL && (*link)->begin != address) link = &(*link)->next;
  Allocation *found = *link;
  if (found != NULL) {
    *link = found->next;
    allocated -= found->bytes;
  }
  long long now = allocated;
  pthread_mutex_unlock(&lock);
  if (found == NULL) return address == NULL ? cudaSuccess : cudaErrorInvalidValue;
  pretended_cuda_log("FREE %zu %lld", found->bytes, now);
  munmap(found->begin, found->bytes);
  free(found);
  return cudaSuccess;
}

cudaError_t cudaMallocFromPoolAsync(void **address, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  return cudaMalloc(address, bytes);
}

cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) { return cudaFree(address); }

cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) {
  pretended_cuda_log("HOSTALLOC %zu", bytes);
  return posix_memalign(address, 512, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaMallocHost(void **address, size_t bytes) { return cudaHostAlloc(address, bytes, 0); }

cudaError_t cudaFreeHost(void *address) {
  free(address);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *bytes) {
  *bytes = DEVICE_BYTES;
  *free_bytes = DEVICE_BYTES - allocated;
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) {
  *(uint64_t *)value = 0;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address) {
  *attributes = (struct cudaPointerAttributes){.type = cudaMemoryTypeUnregistered};
  const char *wanted = address;
  pthread_mutex_lock(&lock);
  for (const Allocation *each = allocations; each != NULL; each = each->next) {
    if (wanted >= each->begin && wanted < each->begin + each->bytes) {
      attributes->type = cudaMemoryTypeDevice;
      attributes->devicePointer = (void *)address;
    }
  }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

static const char *const directions[] = {"H2H", "H2D", "D2H", "D2D", "ANY"};

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  pretended_cuda_log("COPY %s %zu", directions[kind], bytes);
  memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
  pretended_cuda_log("COPY %s %zu", directions[kind], width * height);
  for (size_t row = 0; row < height; row++) {
    memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind) {
  memset(to, 0, bytes);
  return cudaSuccess;
}

/* Zeros are already there in new memory; writing them would take pages of the host's. Values mean nothing anyway. */
cudaError_t cudaMemset(void *address, int value, size_t bytes) {
  pretended_cuda_log("SET %zu", bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream) {
  return cudaMemset(address, value, bytes);
}
