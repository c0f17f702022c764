/* Counts the operations that change files below one folder, and makes one of them fail.
 *
 * Loaded with LD_PRELOAD, it wraps functions of the C library. `faults_arm` sets the folder and the fault; before that,
 * and for all other files, every call passes. Each operation is written to a trace: name, bytes, path, other path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL, TEAR, FULL, BROKEN, READ_ONLY }; /* as in fault_trials.py */
enum { PASS, FAIL, HALF };

static char root[PATH_MAX];
static size_t root_length;
static int kind, trace = -1, flock_error;
static long count, at;

void faults_arm(const char *folder, int what, long number, int trace_descriptor, int flock_errno) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    kind = what, at = number, trace = trace_descriptor, flock_error = flock_errno;
    count = 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int below(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int place(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = root_length ? readlink(link, path, PATH_MAX - 1) : -1;
    path[length < 0 ? 0 : length] = 0;
    return below(path);
}

static int resolve(int folder, const char *name, char *path) {
    if (!root_length) return 0;
    char where[PATH_MAX] = "";
    if (name[0] != '/') {
        if (folder != AT_FDCWD) place(folder, where);
        else if (!getcwd(where, sizeof where)) return 0;
    }
    snprintf(path, PATH_MAX, "%s%s%s", where, name[0] == '/' ? "" : "/", name);
    return below(path);
}

/* Decides about an operation: it passes, fails with errno set, or (a write) is killed halfway. */
static int strike(const char *name, long bytes, const char *path, const char *other) {
    long number = __sync_fetch_and_add(&count, 1);
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s\t%ld\t%s\t%s\n", name, bytes, path, other);
    if (trace >= 0) syscall(SYS_write, trace, line, (size_t)length);
    if (kind == READ_ONLY) return errno = EROFS, FAIL;
    int grows = !strcmp(name, "write") || !strcmp(name, "create") || !strcmp(name, "mkdir");
    if (kind == FULL && (number == at || (number > at && grows))) return errno = ENOSPC, FAIL;
    if (number != at) return PASS;
    if (kind == KILL) kill(getpid(), SIGKILL);
    if (kind == BROKEN) return errno = EIO, FAIL;
    return kind == TEAR ? HALF : PASS;
}

static int opening(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) || !resolve(folder, name, path)) return PASS;
    if (kind == READ_ONLY) return strike("open", 0, path, "");
    if (faccessat(AT_FDCWD, path, F_OK, 0)) return flags & O_CREAT ? strike("create", 0, path, "") : PASS;
    return flags & O_TRUNC ? strike("truncate", 0, path, "") : PASS;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return opening(AT_FDCWD, path, flags) ? -1 : REAL(name)(path, flags, mode);                                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...) {                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return opening(folder, path, flags) ? -1 : REAL(name)(folder, path, flags, mode);                              \
    }
OPENAT(openat)
OPENAT(openat64)

#define WRITE(name, bytes, half, parameters, ...)                                                                      \
    ssize_t name parameters {                                                                                          \
        char path[PATH_MAX];                                                                                           \
        int what = place(descriptor, path) ? strike("write", bytes, path, "") : PASS;                                  \
        if (what == HALF) {                                                                                            \
            half;                                                                                                      \
            kill(getpid(), SIGKILL);                                                                                   \
        }                                                                                                              \
        return what == FAIL ? -1 : REAL(name)(__VA_ARGS__);                                                            \
    }
WRITE(write, (long)size, REAL(write)(descriptor, data, size / 2), (int descriptor, const void *data, size_t size),
      descriptor, data, size)
WRITE(pwrite, (long)size, REAL(pwrite)(descriptor, data, size / 2, offset),
      (int descriptor, const void *data, size_t size, off_t offset), descriptor, data, size, offset)
WRITE(pwrite64, (long)size, REAL(pwrite64)(descriptor, data, size / 2, offset),
      (int descriptor, const void *data, size_t size, off64_t offset), descriptor, data, size, offset)
WRITE(writev, -1L, REAL(writev)(descriptor, parts, number / 2),
      (int descriptor, const struct iovec *parts, int number), descriptor, parts, number)

#define ON_DESCRIPTOR(name, said, bytes, parameters, ...)                                                              \
    int name parameters {                                                                                              \
        char path[PATH_MAX];                                                                                           \
        return place(descriptor, path) && strike(said, bytes, path, "") ? -1 : REAL(name)(__VA_ARGS__);                \
    }
ON_DESCRIPTOR(fsync, "sync", 0, (int descriptor), descriptor)
ON_DESCRIPTOR(fdatasync, "sync", 0, (int descriptor), descriptor)
ON_DESCRIPTOR(ftruncate, "truncate", (long)size, (int descriptor, off_t size), descriptor, size)
ON_DESCRIPTOR(ftruncate64, "truncate", (long)size, (int descriptor, off64_t size), descriptor, size)

#define ON_PATH(name, said, folder, parameters, ...)                                                                   \
    int name parameters {                                                                                              \
        char place[PATH_MAX];                                                                                          \
        return resolve(folder, path, place) && strike(said, 0, place, "") ? -1 : REAL(name)(__VA_ARGS__);              \
    }
ON_PATH(unlink, "unlink", AT_FDCWD, (const char *path), path)
ON_PATH(unlinkat, flags &AT_REMOVEDIR ? "rmdir" : "unlink", folder, (int folder, const char *path, int flags), folder,
        path, flags)
ON_PATH(rmdir, "rmdir", AT_FDCWD, (const char *path), path)

/* Only for folders that do not exist yet: otherwise nothing is created, and callers accept that. */
static int making(int folder, const char *name) {
    char path[PATH_MAX];
    return resolve(folder, name, path) && faccessat(AT_FDCWD, path, F_OK, 0) && strike("mkdir", 0, path, "");
}

int mkdir(const char *path, mode_t mode) {
    return making(AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    return making(folder, path) ? -1 : REAL(mkdirat)(folder, path, mode);
}

#define RENAME(name, said, one, two, parameters, ...)                                                                  \
    int name parameters {                                                                                              \
        char before[PATH_MAX] = "", after[PATH_MAX] = "";                                                              \
        int inside = resolve(one, from, before);                                                                       \
        inside |= resolve(two, to, after);                                                                             \
        return inside && strike(said, 0, before, after) ? -1 : REAL(name)(__VA_ARGS__);                                \
    }
RENAME(rename, "rename", AT_FDCWD, AT_FDCWD, (const char *from, const char *to), from, to)
RENAME(renameat, "rename", one, two, (int one, const char *from, int two, const char *to), one, from, two, to)
RENAME(renameat2, "rename", one, two, (int one, const char *from, int two, const char *to, unsigned flags), one, from,
       two, to, flags)
RENAME(link, "link", AT_FDCWD, AT_FDCWD, (const char *from, const char *to), from, to)

/* Simulates a file system without locks. */
int flock(int descriptor, int operation) {
    char path[PATH_MAX];
    if (flock_error && place(descriptor, path)) return errno = flock_error, -1;
    return REAL(flock)(descriptor, operation);
}
