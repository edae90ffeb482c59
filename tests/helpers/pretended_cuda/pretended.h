/* What the pretended libraries share. */
#define DEVICE_BYTES 150000000000LL

/* Write a line into the log, as printf does. */
void pretended_cuda_log(const char *format, ...);
