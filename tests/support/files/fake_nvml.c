/* NVIDIA's management library for a machine with two GPUs, one of which is sick.
 *
 * The functions have the names, arguments and return codes of the real library, as far as a node
 * check calls them. GPU-sick has three uncorrected ECC errors, a row that could not be replaced, and
 * XID 79 after XID 48. GPU-well has none, and no events.
 */

#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10 };

struct device {
    int sick;
};
struct set {
    int waits;
};
struct event {
    struct device *device;
    unsigned long long type, data;
    unsigned int gpu_instance, compute_instance;
};

static struct device devices[] = {{0}, {1}};
static struct set events;
static int open_count;

int nvmlInitWithFlags(unsigned int flags) {
    open_count++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    open_count--;
    return SUCCESS;
}

/* For the test: how often the library is still open. */
int fake_open_count(void) { return open_count; }

const char *nvmlErrorString(int code) { return "made up"; }

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device) {
    if (strcmp(uuid, "GPU-well") == 0)
        *device = &devices[0];
    else if (strcmp(uuid, "GPU-sick") == 0)
        *device = &devices[1];
    else
        return NOT_FOUND;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(struct device *device, int kind, int counter,
                                unsigned long long *count) {
    if (kind != 1 || counter != 0) return NOT_SUPPORTED; /* uncorrected, volatile */
    *count = device->sick ? 3 : 0;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(struct device *device, unsigned int *corrected,
                              unsigned int *uncorrected, unsigned int *pending,
                              unsigned int *failed) {
    if (!device->sick) return NOT_SUPPORTED;
    *corrected = 1, *uncorrected = 2, *pending = 1, *failed = 1;
    return SUCCESS;
}

int nvmlEventSetCreate(struct set **set) {
    events.waits = 0;
    *set = &events;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, struct set *set) {
    return device->sick && types == 8 ? SUCCESS : NOT_SUPPORTED; /* critical XID errors */
}

int nvmlEventSetWait_v2(struct set *set, struct event *event, unsigned int milliseconds) {
    static const unsigned long long xids[] = {48, 79};
    if (set->waits == 2) return TIMEOUT;
    memset(event, 0, sizeof *event);
    event->type = 8;
    event->data = xids[set->waits++];
    return SUCCESS;
}

int nvmlEventSetFree(struct set *set) { return SUCCESS; }
