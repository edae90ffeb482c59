/* Words of the CUDA compiler in the headers of the CUDA runtime, for gcc: this file comes with the compiler only. */
#define __host__
#define __device__
#define __device_builtin__
#define __cudart_builtin__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __builtin_align__(bytes) __align__(bytes)
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDART_CB
