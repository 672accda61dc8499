/* SPDX-License-Identifier: Apache-2.0
 * A libnvidia-ml.so.1 for tests: answers the calls that the node makes. The file named by QUBIX_TEST_NVML holds lines
 * `name value` and is read anew at each call, so a test moves a gauge by writing it. `lost N` makes card N's calls fail
 * as those of a card that fell off the bus; a gauge of -1 is not supported. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15 };
typedef struct { int number; } Card;
static Card cards[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static int started;

static long long gauge(const char *name, long long standard) {
    const char *path = getenv("QUBIX_TEST_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char found[64];
    long long value, result = standard;
    if (!file) return standard;
    while (fscanf(file, "%63s %lld", found, &value) == 2)
        if (!strcmp(found, name)) result = value;
    fclose(file);
    return result;
}

static int card_state(Card *card) {
    if (!started) return UNINITIALIZED;
    return gauge("lost", -1) == card->number ? GPU_IS_LOST : SUCCESS;
}
#define CARD_OR_RETURN(card) do { int state = card_state(card); if (state) return state; } while (0)

static int tell(const char *name, long long standard, unsigned *out) {
    long long value = gauge(name, standard);
    if (value < 0) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    int error = (int)gauge("init_error", 0);
    (void)flags;
    if (!error) started++;
    return error;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!started) return UNINITIALIZED; started--; return SUCCESS; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : code == NOT_SUPPORTED ? "Not Supported" : "Error"; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { snprintf(out, size, "580.95.05"); return SUCCESS; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = 13010; return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }
int nvmlDeviceGetCount_v2(unsigned *out) { return tell("count", 2, out); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Card **out) {
    if (index >= (unsigned)gauge("count", 2)) return INVALID_ARGUMENT;
    *out = &cards[index];
    return SUCCESS;
}
int nvmlDeviceGetName(Card *card, char *out, unsigned size) { CARD_OR_RETURN(card); snprintf(out, size, "Test Card %d", card->number); return SUCCESS; }
int nvmlDeviceGetUUID(Card *card, char *out, unsigned size) { CARD_OR_RETURN(card); snprintf(out, size, "GPU-00000000-0000-0000-0000-%012d", card->number); return SUCCESS; }
struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(Card *card, struct memory *out) {
    CARD_OR_RETURN(card);
    out->total = (unsigned long long)gauge("mem_total", 24LL << 30);
    out->used = (unsigned long long)gauge("mem_used", 1LL << 30);
    out->free = out->total - out->used;
    return SUCCESS;
}
struct usage { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(Card *card, struct usage *out) { CARD_OR_RETURN(card); out->memory = 3; return tell("util", 7, &out->gpu); }
int nvmlDeviceGetTemperature(Card *card, int sensor, unsigned *out) { (void)sensor; CARD_OR_RETURN(card); return tell("temp", 41, out); }
struct temperature { unsigned version; int sensor; int value; };
int nvmlDeviceGetTemperatureV(Card *card, struct temperature *out) { unsigned value = 0; int code; CARD_OR_RETURN(card); code = tell("temp", 41, &value); out->value = (int)value; return code; }
int nvmlDeviceGetPowerUsage(Card *card, unsigned *out) { CARD_OR_RETURN(card); return tell("power_mw", 65000, out); }
int nvmlDeviceGetClockInfo(Card *card, int kind, unsigned *out) { (void)kind; CARD_OR_RETURN(card); return tell("clock_mhz", 1980, out); }
int nvmlDeviceGetNumGpuCores(Card *card, unsigned *out) { CARD_OR_RETURN(card); return tell("cores", 16384, out); }
int nvmlDeviceGetCudaComputeCapability(Card *card, int *major, int *minor) { CARD_OR_RETURN(card); *major = 8; *minor = 9; return SUCCESS; }
