/* SPDX-License-Identifier: Apache-2.0
 * A libcuda.so.1 for tests: one device with no arithmetic. Memory is the host's, machine code is loaded unread, and a
 * launch is written down, so that all of the way to a device can be walked but the last step. One function is played:
 * `axpy` of tests/kernels/planted_cuda.py, from its arguments as the driver gets them.
 *
 * QUBIX_TEST_CUDA_LOG names the file for the lines `load` and `launch FUNCTION gx gy gz bx by bz`.
 * QUBIX_TEST_CUDA_BYTES bounds an allocation; QUBIX_TEST_CUDA_FAULT is what a copy back from the device answers.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };
enum { WARP = 10, MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76, FUNCTIONS = 64, NAME = 1024 };
typedef struct { unsigned gx, gy, gz, bx, by, bz; } Shape;
static char functions[FUNCTIONS][NAME];
static uintptr_t loaded, found;

static long setting(const char *name, long standard) {
    const char *value = getenv(name);
    return value ? atol(value) : standard;
}

static FILE *log_file(void) {
    const char *path = getenv("QUBIX_TEST_CUDA_LOG");
    return fopen(path ? path : "/dev/null", "a");
}

static int done(void) { return SUCCESS; }
static int init(unsigned flags) { (void)flags; return SUCCESS; }
static int version(int *number) { *number = 13000; return SUCCESS; }
static int device_count(int *count) { *count = 1; return SUCCESS; }
static int device_get(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
static int device_name(char *name, int size, int device) { (void)device; snprintf(name, size, "Stub"); return SUCCESS; }
static int device_uuid(void *uuid, int device) { (void)device; memset(uuid, 7, 16); return SUCCESS; }

static int attribute(int *value, int which, int device) {
    (void)device;
    *value = which == MAJOR ? 9 : which == MINOR ? 0 : which == MULTIPROCESSORS ? 2 : which == WARP ? 32 : 1024;
    return SUCCESS;
}

static int context_retain(void **context, int device) { (void)device; *context = functions; return SUCCESS; }
static int context_current(void **context) { *context = functions; return SUCCESS; }
static int context_device(int *device) { *device = 0; return SUCCESS; }

static int allocate(uint64_t *at, size_t size) {
    if (size > (size_t)setting("QUBIX_TEST_CUDA_BYTES", 1L << 33)) return OUT_OF_MEMORY;
    *at = (uint64_t)(uintptr_t)calloc(1, size);
    return SUCCESS;
}
static int release(uint64_t at) { free((void *)(uintptr_t)at); return SUCCESS; }
static int memory_info(size_t *unused, size_t *total) { *unused = *total = (size_t)1 << 33; return SUCCESS; }
static int to_device(uint64_t to, const void *from, size_t size) {
    memcpy((void *)(uintptr_t)to, from, size);
    return SUCCESS;
}
static int to_host(void *to, uint64_t from, size_t size) {
    memcpy(to, (void *)(uintptr_t)from, size);
    return (int)setting("QUBIX_TEST_CUDA_FAULT", SUCCESS);
}

static int load(void **library, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    FILE *log = log_file();
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    if (memcmp(code, "\177ELF", 4)) return INVALID_IMAGE;
    fprintf(log, "load\n");
    fclose(log);
    *library = (void *)++loaded;
    return SUCCESS;
}
static int kernel(void **kernel, void *library, const char *name) {
    (void)library;
    snprintf(functions[found], NAME, "%s", name);
    *kernel = functions[found++ % FUNCTIONS];
    return SUCCESS;
}
static int function(void **function, void *kernel) { *function = kernel; return SUCCESS; }
static int module(void **module, void *library) { *module = library; return SUCCESS; }
static int function_attribute(int *value, int which, void *of) { (void)which, (void)of; *value = 0; return SUCCESS; }

/* An array comes as: owner, parent, numbers, bytes of a number, address, shape, strides. */
static void axpy(void **arguments) {
    float a = *(float *)arguments[0], *x = *(float **)arguments[5], *y = *(float **)arguments[12];
    int64_t size = *(int64_t *)arguments[3];
    for (int64_t i = 0; i < size; i++) y[i] = a * x[i] + 1;
}
static int launch(const Shape *shape, void *function, void **arguments, void **extra) {
    FILE *log = log_file();
    (void)extra;
    fprintf(log, "launch %s %u %u %u %u %u %u\n", (char *)function, shape->gx, shape->gy, shape->gz, shape->bx,
            shape->by, shape->bz);
    fclose(log);
    if (strstr(function, "planted_cuda4axpy") || strstr(function, "__main__4axpy")) axpy(arguments);
    return SUCCESS;
}
static int error_name(int error, const char **name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_UNKNOWN";
    return SUCCESS;
}

int cuGetProcAddress_v2(const char *name, void **at, int version_, uint64_t flags, void *status) {
    static const struct { const char *name; void *at; } known[] = {
        {"cuInit", init}, {"cuDriverGetVersion", version}, {"cuDeviceGetCount", device_count},
        {"cuDeviceGet", device_get}, {"cuDeviceGetName", device_name}, {"cuDeviceGetUuid", device_uuid},
        {"cuDeviceGetAttribute", attribute}, {"cuDevicePrimaryCtxRetain", context_retain},
        {"cuDevicePrimaryCtxRelease", done}, {"cuCtxGetCurrent", context_current}, {"cuCtxGetDevice", context_device},
        {"cuCtxPushCurrent", done}, {"cuCtxPopCurrent", done}, {"cuCtxSetCurrent", done}, {"cuCtxSynchronize", done},
        {"cuStreamSynchronize", done}, {"cuMemAlloc", allocate}, {"cuMemFree", release},
        {"cuMemGetInfo", memory_info}, {"cuMemcpyHtoD", to_device}, {"cuMemcpyDtoH", to_host},
        {"cuLibraryLoadData", load}, {"cuLibraryGetKernel", kernel}, {"cuLibraryGetModule", module},
        {"cuLibraryUnload", done}, {"cuKernelGetFunction", function}, {"cuKernelGetAttribute", function_attribute},
        {"cuFuncGetAttribute", function_attribute}, {"cuLaunchKernelEx", launch}, {"cuGetErrorName", error_name},
        {"cuGetErrorString", error_name}, {"cuGetProcAddress", cuGetProcAddress_v2},
    };
    (void)version_, (void)flags, (void)status;
    *at = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) *at = known[i].at;
    return *at ? SUCCESS : NOT_FOUND;
}

int cuGetProcAddress(const char *name, void **at, int version_, uint64_t flags) {
    return cuGetProcAddress_v2(name, at, version_, flags, NULL);
}
