/* SPDX-License-Identifier: Apache-2.0
 * A libnvidia-ml.so.1 for tests: answers the calls that the node makes, and fails them on demand.
 *
 * The file named by QUBIX_TEST_NVML holds lines `name value`, the last one counts; it is read anew at each call, so a
 * test moves a gauge by writing it. Each name may end in `.N`, and is then about card N alone:
 *   util 93            a gauge; below 0: not supported
 *   lost 0             card 0 fell off the bus
 *   fail.CALL 999      this call (its name without nvml) gives this error
 *   hang.CALL 1        this call does not return while the line is there
 *   xid 79             waits as one critical error; each new `xid_count` delivers it again
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, VERSION_MISMATCH = 18, UNKNOWN = 999
};
enum { CARDS = 8, NAME = 96 };
typedef struct { int number; } Card;
static Card cards[CARDS] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static int started;

static int look_up(const char *name, long long *value) {
    const char *path = getenv("QUBIX_TEST_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char found[NAME];
    long long each;
    int there = 0;
    if (!file) return 0;
    while (fscanf(file, "%95s %lld", found, &each) == 2)
        if (!strcmp(found, name)) { *value = each; there = 1; }
    fclose(file);
    return there;
}

/* The gauge of one card, or else of all; `card` NULL: of the system. */
static long long gauge(const Card *card, const char *name, long long standard) {
    char own[NAME];
    long long value = standard;
    if (card) {
        snprintf(own, sizeof own, "%s.%d", name, card->number);
        if (look_up(own, &value)) return value;
    }
    look_up(name, &value);
    return value;
}

static int enter(const Card *card, const char *call) {
    char name[NAME];
    snprintf(name, sizeof name, "hang.%s", call);
    while (gauge(card, name, 0)) usleep(10000);
    if (!started) return UNINITIALIZED;
    if (card && gauge(NULL, "lost", -1) == card->number) return GPU_IS_LOST;
    snprintf(name, sizeof name, "fail.%s", call);
    return (int)gauge(card, name, SUCCESS);
}
#define ENTER(card, call) do { int code = enter(card, call); if (code) return code; } while (0)

static int tell(const Card *card, const char *name, long long standard, unsigned *out) {
    long long value = gauge(card, name, standard);
    if (value < 0) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return SUCCESS;
}

static int tell_long(const Card *card, const char *name, long long standard, unsigned long long *out) {
    long long value = gauge(card, name, standard);
    if (value < 0) return NOT_SUPPORTED;
    *out = (unsigned long long)value;
    return SUCCESS;
}

/* The system ------------------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) {
    int error = (int)gauge(NULL, "init_error", 0);
    (void)flags;
    while (gauge(NULL, "hang.Init", 0)) usleep(10000);
    if (!error) started++;
    return error;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!started) return UNINITIALIZED; started--; return SUCCESS; }
const char *nvmlErrorString(int code) {
    switch (code) {
    case GPU_IS_LOST: return "GPU is lost";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case VERSION_MISMATCH: return "Driver/library version mismatch";
    case UNKNOWN: return "Unknown Error";
    default: return "Error";
    }
}
int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    ENTER(NULL, "SystemGetDriverVersion");
    snprintf(out, size, "%lld.95.05", gauge(NULL, "driver", 580));
    return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion(int *out) { ENTER(NULL, "SystemGetCudaDriverVersion"); *out = 13010; return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }
int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(NULL, "DeviceGetCount"); return tell(NULL, "count", 2, out); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Card **out) {
    long long slot = index;
    if (index >= (unsigned)gauge(NULL, "present", gauge(NULL, "count", 2))) return INVALID_ARGUMENT;
    if (gauge(NULL, "reversed", 0)) slot = gauge(NULL, "count", 2) - 1 - slot;
    *out = &cards[slot % CARDS];
    return enter(*out, "DeviceGetHandleByIndex");
}

/* What a card is --------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetName(Card *card, char *out, unsigned size) {
    ENTER(card, "DeviceGetName");
    snprintf(out, size, "Test Card %d", card->number);
    return SUCCESS;
}
int nvmlDeviceGetUUID(Card *card, char *out, unsigned size) {
    ENTER(card, "DeviceGetUUID");
    snprintf(out, size, "GPU-00000000-0000-0000-0000-%012d", card->number);
    return SUCCESS;
}
int nvmlDeviceGetNumGpuCores(Card *card, unsigned *out) { ENTER(card, "DeviceGetNumGpuCores"); return tell(card, "cores", 16384, out); }
int nvmlDeviceGetCudaComputeCapability(Card *card, int *major, int *minor) {
    long long value = gauge(card, "capability", 89);
    ENTER(card, "DeviceGetCudaComputeCapability");
    if (value < 0) return NOT_SUPPORTED;
    *major = (int)value / 10;
    *minor = (int)value % 10;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(Card *card, unsigned *current, unsigned *pending) {
    ENTER(card, "DeviceGetMigMode");
    *pending = 0;
    return tell(card, "mig", -1, current);
}
int nvmlDeviceGetMinorNumber(Card *card, unsigned *out) { ENTER(card, "DeviceGetMinorNumber"); return tell(card, "minor", card->number, out); }
int nvmlDeviceGetComputeMode(Card *card, unsigned *out) { ENTER(card, "DeviceGetComputeMode"); return tell(card, "compute_mode", 0, out); }

/* What it does now ------------------------------------------------------------------------------------------------- */

struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(Card *card, struct memory *out) {
    ENTER(card, "DeviceGetMemoryInfo");
    out->total = (unsigned long long)gauge(card, "mem_total", 24LL << 30);
    out->used = (unsigned long long)gauge(card, "mem_used", 1LL << 30);
    out->free = out->total - out->used;
    return SUCCESS;
}
struct usage { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(Card *card, struct usage *out) {
    ENTER(card, "DeviceGetUtilizationRates");
    tell(card, "util_mem", 3, &out->memory);
    return tell(card, "util", 7, &out->gpu);
}
int nvmlDeviceGetTemperature(Card *card, int sensor, unsigned *out) { (void)sensor; ENTER(card, "DeviceGetTemperature"); return tell(card, "temp", 41, out); }
struct temperature { unsigned version; int sensor; int value; };
int nvmlDeviceGetTemperatureV(Card *card, struct temperature *out) {
    unsigned value = 0;
    int code;
    ENTER(card, "DeviceGetTemperatureV");
    code = tell(card, "temp", 41, &value);
    out->value = (int)value;
    return code;
}
int nvmlDeviceGetPowerUsage(Card *card, unsigned *out) { ENTER(card, "DeviceGetPowerUsage"); return tell(card, "power_mw", 65000, out); }
int nvmlDeviceGetEnforcedPowerLimit(Card *card, unsigned *out) { ENTER(card, "DeviceGetEnforcedPowerLimit"); return tell(card, "power_limit_mw", 450000, out); }
int nvmlDeviceGetPowerManagementLimit(Card *card, unsigned *out) { ENTER(card, "DeviceGetPowerManagementLimit"); return tell(card, "power_limit_mw", 450000, out); }
int nvmlDeviceGetClockInfo(Card *card, int kind, unsigned *out) {
    ENTER(card, "DeviceGetClockInfo");
    return kind == 2 ? tell(card, "memory_clock_mhz", 10501, out) : tell(card, "clock_mhz", 1980, out);
}
int nvmlDeviceGetFanSpeed(Card *card, unsigned *out) { ENTER(card, "DeviceGetFanSpeed"); return tell(card, "fan", 30, out); }
int nvmlDeviceGetPcieThroughput(Card *card, int counter, unsigned *out) {
    ENTER(card, "DeviceGetPcieThroughput");
    return counter ? tell(card, "pcie_rx_kb", 2048, out) : tell(card, "pcie_tx_kb", 1024, out);
}
int nvmlDeviceGetCurrentClocksEventReasons(Card *card, unsigned long long *out) {
    ENTER(card, "DeviceGetCurrentClocksEventReasons");
    return tell_long(card, "throttle", 1, out);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Card *card, unsigned long long *out) {
    ENTER(card, "DeviceGetCurrentClocksThrottleReasons");
    return tell_long(card, "throttle", 1, out);
}

/* `processes N`, whose ids are `pid`, `pid` + 1, …, each with `process_mem` bytes. */
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(Card *card, unsigned *count, struct process *out) {
    unsigned found, room = *count, i;
    ENTER(card, "DeviceGetComputeRunningProcesses");
    if (tell(card, "processes", 0, &found)) return NOT_SUPPORTED;
    *count = found;
    if (found > room || (found && !out)) return INSUFFICIENT_SIZE;
    for (i = 0; i < found; i++) {
        out[i].pid = (unsigned)gauge(card, "pid", 4000000) + i;
        out[i].memory = (unsigned long long)gauge(card, "process_mem", 1LL << 20);
    }
    return SUCCESS;
}

/* Its health ------------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetTotalEccErrors(Card *card, int type, int counter, unsigned long long *out) {
    (void)type; (void)counter;
    ENTER(card, "DeviceGetTotalEccErrors");
    return tell_long(card, "ecc", -1, out);
}
int nvmlDeviceGetRetiredPages(Card *card, int cause, unsigned *count, unsigned long long *out) {
    unsigned found, room = *count;
    (void)cause; (void)out;
    ENTER(card, "DeviceGetRetiredPages");
    if (tell(card, "retired", -1, &found)) return NOT_SUPPORTED;
    *count = found;
    if (found > room) return INSUFFICIENT_SIZE;
    if (found) memset(out, 0, found * sizeof *out);
    return SUCCESS;
}
int nvmlDeviceGetRemappedRows(Card *card, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed) {
    ENTER(card, "DeviceGetRemappedRows");
    *correctable = *pending = *failed = 0;
    return tell(card, "remapped", -1, uncorrectable);
}

/* Critical errors: an event set is the card that was registered with it. */
struct event { Card *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };
typedef struct { Card *card; long long delivered; } Events;
static Events sets[CARDS * 2];
static int sets_made;
int nvmlDeviceGetSupportedEventTypes(Card *card, unsigned long long *out) {
    ENTER(card, "DeviceGetSupportedEventTypes");
    return tell_long(card, "events", 8, out);
}
int nvmlEventSetCreate(Events **out) { ENTER(NULL, "EventSetCreate"); *out = &sets[sets_made++ % (CARDS * 2)]; return SUCCESS; }
int nvmlEventSetFree(Events *set) { set->card = NULL; return SUCCESS; }
int nvmlDeviceRegisterEvents(Card *card, unsigned long long types, Events *set) {
    (void)types;
    ENTER(card, "DeviceRegisterEvents");
    set->card = card;
    set->delivered = 0;
    return SUCCESS;
}
int nvmlEventSetWait_v2(Events *set, struct event *out, unsigned timeout_ms) {
    long long xid = gauge(set->card, "xid", -1), count = gauge(set->card, "xid_count", xid < 0 ? 0 : 1);
    (void)timeout_ms;
    ENTER(set->card, "EventSetWait");
    if (xid < 0 || set->delivered >= count) return TIMEOUT;
    set->delivered++;
    memset(out, 0, sizeof *out);
    out->device = set->card;
    out->type = 8;
    out->data = (unsigned long long)xid;
    return SUCCESS;
}
