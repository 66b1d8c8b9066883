/* Faults at exact file operations, for a process that has this library in LD_PRELOAD.

   Operations that change files under the folder FILE_FAULTS_FOLDER are counted once
   file_faults_arm(k, mode) was called. At the k-th one

       EXIT      it is done, and the process ends at once
       HALF      it is half done, and the process ends; only writes are counted
       POWER     as EXIT, and then what was not synced is undone, as a loss of power may
       NO_SPACE  it fails with ENOSPC, and the process goes on

   What a loss of power undoes: the bytes of files that were not synced after they were written;
   files and folders whose folder was not synced after they were made; renames of which neither
   folder was synced. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum mode { EXIT, HALF, POWER, NO_SPACE };
enum { EXIT_STATUS = 86, MOST_UNSYNCED = 256 };

static long target, counted;
static enum mode mode;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void file_faults_arm(long k, int chosen) {
    target = k;
    mode = chosen;
    counted = 0;
}

long file_faults_counted(void) { return counted; }

/* Whether a path lies under the folder. */
static int is_ours(int at, const char *path) {
    static const char *folder;
    char absolute[2 * PATH_MAX], link[64];
    if (!target || !path) return 0;
    if (!folder) folder = getenv("FILE_FAULTS_FOLDER");
    if (path[0] == '/') {
        snprintf(absolute, sizeof absolute, "%s", path);
    } else {
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, absolute, PATH_MAX);
        if (length < 0) return 0;
        snprintf(absolute + length, PATH_MAX, "/%s", path);
    }
    return strncmp(absolute, folder, strlen(folder)) == 0;
}

static int is_ours_open(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!target) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(AT_FDCWD, path);
}

/* What a loss of power would undo, in the order in which it was done. */
static struct change {
    enum { SYNCED, MADE, RENAMED, WRITTEN } what;
    int folder, former_folder; /* descriptors; of what was written, `folder` is the file's */
    char name[NAME_MAX + 1], former_name[NAME_MAX + 1];
} changes[MOST_UNSYNCED];
static int number_of_changes;

static int is_same_file(int one, int other) {
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

/* Opens the folder of a path and copies its last part to `name`. */
static int open_parent(int at, const char *path, char *name) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    const char *last = slash ? slash + 1 : folder;
    memcpy(name, last, strnlen(last, NAME_MAX) + 1);
    if (slash) *slash = 0;
    return syscall(SYS_openat, at, slash ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
}

static struct change *new_change(int what) {
    if (number_of_changes == MOST_UNSYNCED) abort();
    changes[number_of_changes].what = what;
    return &changes[number_of_changes++];
}

static void note_made(int at, const char *path) {
    struct change *change = new_change(MADE);
    change->folder = open_parent(at, path, change->name);
}

static void note_written(int descriptor) {
    for (int i = 0; i < number_of_changes; i++)
        if (changes[i].what == WRITTEN && is_same_file(changes[i].folder, descriptor)) return;
    new_change(WRITTEN)->folder = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
}

static void note_synced(int descriptor) {
    for (int i = 0; i < number_of_changes; i++)
        if (is_same_file(changes[i].folder, descriptor) ||
            (changes[i].what == RENAMED && is_same_file(changes[i].former_folder, descriptor)))
            changes[i].what = SYNCED;
}

static void lose_power(void) {
    for (int i = number_of_changes - 1; i >= 0; i--) {
        struct change *change = &changes[i];
        if (change->what == WRITTEN) syscall(SYS_ftruncate, change->folder, 0);
        if (change->what == MADE && syscall(SYS_unlinkat, change->folder, change->name, 0))
            syscall(SYS_unlinkat, change->folder, change->name, AT_REMOVEDIR);
        if (change->what == RENAMED)
            syscall(SYS_renameat2, change->folder, change->name, change->former_folder,
                    change->former_name, 0);
    }
}

/* Counts an operation; returns whether it is the one to be struck. */
static int strikes(void) { return __sync_add_and_fetch(&counted, 1) == target; }

static void end(void) {
    if (mode == POWER) lose_power();
    _exit(EXIT_STATUS);
}

/* Does an operation that returns 0 or a descriptor if all went well. `note` records what was done. */
#define DO(ours, operation, note)                \
    do {                                         \
        int is = (ours);                         \
        int strike = is && mode != HALF && strikes(); \
        if (strike && mode == NO_SPACE) {        \
            errno = ENOSPC;                      \
            return -1;                           \
        }                                        \
        long result = (operation);               \
        if (is && result >= 0) {                 \
            pthread_mutex_lock(&lock);           \
            note;                                \
            pthread_mutex_unlock(&lock);         \
        }                                        \
        if (strike) end();                       \
        return result;                           \
    } while (0)

static int open_at(int at, const char *path, int flags, mode_t permissions) {
    int changing = (flags & (O_CREAT | O_TRUNC)) && is_ours(at, path);
    int is_new = changing && syscall(SYS_faccessat, at, path, F_OK) != 0;
    DO(changing, syscall(SYS_openat, at, path, flags, permissions), if (is_new) note_made(at, path));
}

#define PERMISSIONS(last)                    \
    mode_t permissions = 0;                  \
    if (flags & O_CREAT) {                   \
        va_list arguments;                   \
        va_start(arguments, last);           \
        permissions = va_arg(arguments, int); \
        va_end(arguments);                   \
    }

int open(const char *path, int flags, ...) {
    PERMISSIONS(flags)
    return open_at(AT_FDCWD, path, flags, permissions);
}
int open64(const char *path, int flags, ...) {
    PERMISSIONS(flags)
    return open_at(AT_FDCWD, path, flags, permissions);
}
int openat(int at, const char *path, int flags, ...) {
    PERMISSIONS(flags)
    return open_at(at, path, flags, permissions);
}
int openat64(int at, const char *path, int flags, ...) {
    PERMISSIONS(flags)
    return open_at(at, path, flags, permissions);
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    int ours = is_ours_open(descriptor);
    if (ours && mode == HALF && strikes()) {
        syscall(SYS_write, descriptor, bytes, size / 2);
        end();
    }
    DO(ours, syscall(SYS_write, descriptor, bytes, size), note_written(descriptor));
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off_t position) {
    DO(is_ours_open(descriptor), syscall(SYS_pwrite64, descriptor, bytes, size, position),
       note_written(descriptor));
}
ssize_t pwrite(int descriptor, const void *bytes, size_t size, off_t position) {
    return pwrite64(descriptor, bytes, size, position);
}

int ftruncate64(int descriptor, off_t size) {
    DO(is_ours_open(descriptor), syscall(SYS_ftruncate, descriptor, size),
       note_written(descriptor));
}
int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int fsync(int descriptor) {
    DO(is_ours_open(descriptor), syscall(SYS_fsync, descriptor), note_synced(descriptor));
}

int fdatasync(int descriptor) { return fsync(descriptor); }

int mkdirat(int at, const char *path, mode_t permissions) {
    DO(is_ours(at, path), syscall(SYS_mkdirat, at, path, permissions), note_made(at, path));
}
int mkdir(const char *path, mode_t permissions) { return mkdirat(AT_FDCWD, path, permissions); }

int renameat(int from, const char *former, int to, const char *path) {
    struct change change = {.what = RENAMED};
    int ours = is_ours(from, former) || is_ours(to, path);
    if (ours) {
        change.former_folder = open_parent(from, former, change.former_name);
        change.folder = open_parent(to, path, change.name);
    }
    DO(ours, syscall(SYS_renameat2, from, former, to, path, 0),
       *new_change(RENAMED) = change);
}
int rename(const char *former, const char *path) {
    return renameat(AT_FDCWD, former, AT_FDCWD, path);
}

int linkat(int from, const char *former, int to, const char *path, int flags) {
    DO(is_ours(to, path), syscall(SYS_linkat, from, former, to, path, flags), note_made(to, path));
}
int link(const char *former, const char *path) {
    return linkat(AT_FDCWD, former, AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags) {
    DO(is_ours(at, path), syscall(SYS_unlinkat, at, path, flags), );
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
    DO(is_ours(at, path), syscall(SYS_utimensat, at, path, times, flags), );
}
