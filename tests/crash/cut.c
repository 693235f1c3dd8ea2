/* Ends or fails a process at its n-th call of a file system.
 *
 * Counts, over all threads and from `cut_arm` on, the calls of the kinds that are
 * asked for, of what lies below one folder.  Preloaded, it sees SQLite's calls, too.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>

/* Kinds of calls; one may be of several.  MOVED is reading and writing, NAMES what may ask for one
 * link too many. */
enum { CHANGES = 1, READS = 2, WRITTEN = 4, MOVED = 8, CLOSES = 16, NAMES = 32 };
/* What happens instead of an error: death before the call; half of the bytes are written, then
 * death; half of the bytes, as a call may do. */
enum { KILL = 0, TORN = -1, SHORT = -2 };

static long calls, at, with, goes_on, kinds;
static int tell = -1;
static char below[4096];
static size_t length;

/* From now on count calls of these kinds below this folder; the call number `n` fails with the
 * error `error`, or what else it means, and with `on` all that follow it.  What call that is goes
 * to the descriptor `fd`. */
void cut_arm(long n, long error, long on, long which, const char *folder, int fd)
{
    calls = 0;
    with = error;
    goes_on = on;
    kinds = which;
    tell = fd;
    length = strlen(folder);
    memcpy(below, folder, length + 1);
    at = n;
}

/* How many calls there were since. */
long cut_calls(void)
{
    return calls;
}

static int inside(int fd, const char *path)
{
    char link[64], found[4096];
    if (path && !strncmp(path, "/proc/self/fd/", 14)) {
        fd = atoi(path + 14);
        path = NULL;
    }
    if (path && path[0] == '/')
        return !strncmp(path, below, length);
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    long size = syscall(SYS_readlink, link, found, sizeof found);
    return size >= (long)length && !memcmp(found, below, length);
}

/* Whether this call is the one. */
static int cut(int kind, const char *name, int fd, const char *path)
{
    int before = errno;
    if (!at || !(kinds & kind) || !inside(fd, path)) {
        errno = before;
        return 0;
    }
    errno = before;
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (number < at || (number > at && !goes_on))
        return 0;
    if (number == at && tell >= 0)
        dprintf(tell, "%s %s\n", name, path ? path : "");
    if (with == KILL)
        kill(getpid(), SIGKILL);
    if (with > 0)
        errno = with;
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define WRAP(kind, type, fails, name, parameters, arguments, fd, path) \
    type name parameters \
    { \
        REAL(name); \
        return cut(kind, #name, fd, path) ? fails : real arguments; \
    }
#define CHANGE(name, parameters, arguments, fd, path) \
    WRAP(CHANGES, int, -1, name, parameters, arguments, fd, path)
#define NAME(name, parameters, arguments, fd, path) \
    WRAP(CHANGES | NAMES, int, -1, name, parameters, arguments, fd, path)
#define LOOK(type, name, parameters, arguments, fd, path) \
    WRAP(READS, type, -1, name, parameters, arguments, fd, path)

/* Calls that move bytes: of these half may be done. */
#define MOVE(kind, name, parameters, whole, half, fd) \
    ssize_t name parameters \
    { \
        REAL(name); \
        if (!cut(kind | MOVED, #name, fd, NULL)) \
            return real whole; \
        if (with > 0) \
            return -1; \
        ssize_t done = real half; \
        if (with == TORN) \
            kill(getpid(), SIGKILL); \
        return done; \
    }
#define HALF(size) ((size) - (size) / 2)

MOVE(CHANGES | WRITTEN, write, (int f, const void *d, size_t s), (f, d, s), (f, d, HALF(s)), f)
MOVE(CHANGES | WRITTEN, pwrite, (int f, const void *d, size_t s, off_t o), (f, d, s, o),
     (f, d, HALF(s), o), f)
MOVE(CHANGES | WRITTEN, pwrite64, (int f, const void *d, size_t s, off64_t o), (f, d, s, o),
     (f, d, HALF(s), o), f)
MOVE(CHANGES, copy_file_range,
     (int a, off64_t *b, int c, off64_t *d, size_t s, unsigned e), (a, b, c, d, s, e),
     (a, b, c, d, HALF(s), e), c)
MOVE(READS, read, (int f, void *d, size_t s), (f, d, s), (f, d, HALF(s)), f)
MOVE(READS, pread, (int f, void *d, size_t s, off_t o), (f, d, s, o), (f, d, HALF(s), o), f)
MOVE(READS, pread64, (int f, void *d, size_t s, off64_t o), (f, d, s, o), (f, d, HALF(s), o), f)

NAME(linkat, (int a, const char *b, int c, const char *d, int e), (a, b, c, d, e), c, d)
NAME(link, (const char *a, const char *b), (a, b), AT_FDCWD, b)
NAME(rename, (const char *a, const char *b), (a, b), AT_FDCWD, b)
NAME(renameat, (int a, const char *b, int c, const char *d), (a, b, c, d), c, d)
NAME(renameat2, (int a, const char *b, int c, const char *d, unsigned e), (a, b, c, d, e), c, d)
CHANGE(unlink, (const char *a), (a), AT_FDCWD, a)
CHANGE(unlinkat, (int a, const char *b, int c), (a, b, c), a, b)
CHANGE(rmdir, (const char *a), (a), AT_FDCWD, a)
NAME(mkdir, (const char *a, mode_t b), (a, b), AT_FDCWD, a)
NAME(mkdirat, (int a, const char *b, mode_t c), (a, b, c), a, b)
CHANGE(symlink, (const char *a, const char *b), (a, b), AT_FDCWD, b)
CHANGE(symlinkat, (const char *a, int b, const char *c), (a, b, c), b, c)
CHANGE(mkfifoat, (int a, const char *b, mode_t c), (a, b, c), a, b)
CHANGE(mknodat, (int a, const char *b, mode_t c, dev_t d), (a, b, c, d), a, b)
CHANGE(ftruncate, (int a, off_t b), (a, b), a, NULL)
CHANGE(ftruncate64, (int a, off64_t b), (a, b), a, NULL)
CHANGE(fallocate64, (int a, int b, off64_t c, off64_t d), (a, b, c, d), a, NULL)
CHANGE(fchmod, (int a, mode_t b), (a, b), a, NULL)
CHANGE(chmod, (const char *a, mode_t b), (a, b), AT_FDCWD, a)
CHANGE(fchmodat, (int a, const char *b, mode_t c, int d), (a, b, c, d), a, b)
CHANGE(fchown, (int a, uid_t b, gid_t c), (a, b, c), a, NULL)
CHANGE(fchownat, (int a, const char *b, uid_t c, gid_t d, int e), (a, b, c, d, e), a, b)
CHANGE(futimens, (int a, const struct timespec b[2]), (a, b), a, NULL)
CHANGE(utimensat, (int a, const char *b, const struct timespec c[2], int d), (a, b, c, d), a, b)
CHANGE(fsetxattr, (int a, const char *b, const void *c, size_t d, int e), (a, b, c, d, e), a, NULL)
CHANGE(setxattr, (const char *a, const char *b, const void *c, size_t d, int e), (a, b, c, d, e),
       AT_FDCWD, a)
CHANGE(lsetxattr, (const char *a, const char *b, const void *c, size_t d, int e), (a, b, c, d, e),
       AT_FDCWD, a)
CHANGE(fremovexattr, (int a, const char *b), (a, b), a, NULL)
CHANGE(removexattr, (const char *a, const char *b), (a, b), AT_FDCWD, a)
CHANGE(lremovexattr, (const char *a, const char *b), (a, b), AT_FDCWD, a)
CHANGE(fsync, (int a), (a), a, NULL)
CHANGE(fdatasync, (int a), (a), a, NULL)
CHANGE(syncfs, (int a), (a), a, NULL)

LOOK(int, stat, (const char *a, struct stat *b), (a, b), AT_FDCWD, a)
LOOK(int, stat64, (const char *a, struct stat64 *b), (a, b), AT_FDCWD, a)
LOOK(int, lstat, (const char *a, struct stat *b), (a, b), AT_FDCWD, a)
LOOK(int, lstat64, (const char *a, struct stat64 *b), (a, b), AT_FDCWD, a)
LOOK(int, fstat, (int a, struct stat *b), (a, b), a, NULL)
LOOK(int, fstat64, (int a, struct stat64 *b), (a, b), a, NULL)
LOOK(int, fstatat, (int a, const char *b, struct stat *c, int d), (a, b, c, d), a, b)
LOOK(int, fstatat64, (int a, const char *b, struct stat64 *c, int d), (a, b, c, d), a, b)
LOOK(int, fstatvfs, (int a, struct statvfs *b), (a, b), a, NULL)
LOOK(int, fstatvfs64, (int a, struct statvfs64 *b), (a, b), a, NULL)
LOOK(int, statvfs, (const char *a, struct statvfs *b), (a, b), AT_FDCWD, a)
LOOK(int, statvfs64, (const char *a, struct statvfs64 *b), (a, b), AT_FDCWD, a)
LOOK(ssize_t, readlink, (const char *a, char *b, size_t c), (a, b, c), AT_FDCWD, a)
LOOK(ssize_t, readlinkat, (int a, const char *b, char *c, size_t d), (a, b, c, d), a, b)
LOOK(ssize_t, fgetxattr, (int a, const char *b, void *c, size_t d), (a, b, c, d), a, NULL)
LOOK(ssize_t, getxattr, (const char *a, const char *b, void *c, size_t d), (a, b, c, d),
     AT_FDCWD, a)
LOOK(ssize_t, lgetxattr, (const char *a, const char *b, void *c, size_t d), (a, b, c, d),
     AT_FDCWD, a)
LOOK(ssize_t, flistxattr, (int a, char *b, size_t c), (a, b, c), a, NULL)
LOOK(ssize_t, listxattr, (const char *a, char *b, size_t c), (a, b, c), AT_FDCWD, a)
LOOK(ssize_t, llistxattr, (const char *a, char *b, size_t c), (a, b, c), AT_FDCWD, a)
WRAP(READS, DIR *, NULL, opendir, (const char *a), (a), AT_FDCWD, a)
WRAP(READS, DIR *, NULL, fdopendir, (int a), (a), a, NULL)
WRAP(READS, struct dirent *, NULL, readdir, (DIR *a), (a), dirfd(a), NULL)
WRAP(READS, struct dirent64 *, NULL, readdir64, (DIR *a), (a), dirfd(a), NULL)

#define SEEK(name, type) \
    type name(int fd, type to, int from) \
    { \
        REAL(name); \
        int looks = from == SEEK_DATA || from == SEEK_HOLE; \
        return looks && cut(READS, #name, fd, NULL) ? -1 : real(fd, to, from); \
    }

SEEK(lseek, off_t)
SEEK(lseek64, off64_t)

/* A drive may keep an error of what was written until then; the descriptor is gone all the same. */
int close(int fd)
{
    REAL(close);
    int counts = at && (kinds & CLOSES) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    int fails = counts && cut(CLOSES, "close", fd, NULL);
    int before = errno, done = real(fd);
    if (fails)
        errno = before;
    return fails ? -1 : done;
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int changes = request == FICLONE || request == FICLONERANGE || request == FS_IOC_SETFLAGS;
    return changes && cut(CHANGES, "ioctl", fd, NULL) ? -1 : real(fd, request, argument);
}

static int opens(int folder, const char *name, int flags, va_list rest, int large)
{
    static int (*real)(int, const char *, int, ...), (*real64)(int, const char *, int, ...);
    if (!real) {
        real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat");
        real64 = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
    }
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    int kind = flags & (O_CREAT | O_TRUNC) ? CHANGES : READS;
    return cut(kind, "open", folder, name) ? -1 : (large ? real64 : real)(folder, name, flags, mode);
}

#define OPEN(name, parameters, folder, large) \
    int name parameters \
    { \
        va_list rest; \
        va_start(rest, flags); \
        int fd = opens(folder, path, flags, rest, large); \
        va_end(rest); \
        return fd; \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, 0)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, 1)
OPEN(openat, (int folder, const char *path, int flags, ...), folder, 0)
OPEN(openat64, (int folder, const char *path, int flags, ...), folder, 1)
