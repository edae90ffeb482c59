/* Functions of cuBLAS, cuBLASLt and cuDNN that return more than success: each library takes those that have its name.
 */
#include <stddef.h>
#include <string.h>

#define CUDNN_VERSION 91000

int cublasGetMathMode(void *handle, int *mode) {
  *mode = 0;
  return 0;
}

/* One algorithm, whose description (96 bytes) is zeros. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *found) {
  memset(results, 0, 96);
  *found = 1;
  return 0;
}

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }

int cudnnGetStream(void *handle, void **stream) {
  *stream = NULL;
  return 0;
}

void cudnnGetLastErrorString(char *message, size_t bytes) {
  if (bytes > 0) *message = '\0';
}

int cudnnBackendCreateDescriptor(int type, void **descriptor) {
  static char any[4096];
  *descriptor = any;
  return 0;
}
