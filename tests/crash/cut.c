/* Ends or fails a process at its n-th call that changes a file system.
 *
 * Counts, over all threads and from `cut_arm` on, the calls that a backup may
 * make on a drive.  Writes to what is no regular file are not counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static long calls, at, with, goes_on;

/* From now on count; fail the call number `n` with the error `error` (0: SIGKILL
 * before it is made), and with `on` all that follow it. */
void cut_arm(long n, long error, long on)
{
    calls = 0;
    at = n;
    with = error;
    goes_on = on;
}

/* How many calls there were since. */
long cut_calls(void)
{
    return calls;
}

/* Whether this call is to fail. */
static int cut(void)
{
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (!at || number < at || (number > at && !goes_on))
        return 0;
    if (!with)
        kill(getpid(), SIGKILL);
    errno = with;
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define WRAP(type, name, parameters, arguments) \
    type name parameters \
    { \
        REAL(name); \
        return cut() ? -1 : real arguments; \
    }

static int on_disk(int fd)
{
    struct stat st;
    return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    return on_disk(fd) && cut() ? -1 : real(fd, data, size);
}

WRAP(ssize_t, pwrite64, (int f, const void *d, size_t s, off64_t o), (f, d, s, o))
WRAP(ssize_t, pwrite, (int f, const void *d, size_t s, off_t o), (f, d, s, o))
WRAP(int, linkat, (int a, const char *b, int c, const char *d, int e), (a, b, c, d, e))
WRAP(int, link, (const char *a, const char *b), (a, b))
WRAP(int, rename, (const char *a, const char *b), (a, b))
WRAP(int, renameat, (int a, const char *b, int c, const char *d), (a, b, c, d))
WRAP(int, renameat2, (int a, const char *b, int c, const char *d, unsigned e), (a, b, c, d, e))
WRAP(int, unlink, (const char *a), (a))
WRAP(int, unlinkat, (int a, const char *b, int c), (a, b, c))
WRAP(int, rmdir, (const char *a), (a))
WRAP(int, mkdir, (const char *a, mode_t b), (a, b))
WRAP(int, mkdirat, (int a, const char *b, mode_t c), (a, b, c))
WRAP(int, symlink, (const char *a, const char *b), (a, b))
WRAP(int, symlinkat, (const char *a, int b, const char *c), (a, b, c))
WRAP(int, mknodat, (int a, const char *b, mode_t c, dev_t d), (a, b, c, d))
WRAP(int, ftruncate, (int a, off_t b), (a, b))
WRAP(int, ftruncate64, (int a, off64_t b), (a, b))
WRAP(int, fchmod, (int a, mode_t b), (a, b))
WRAP(int, chmod, (const char *a, mode_t b), (a, b))
WRAP(int, fchmodat, (int a, const char *b, mode_t c, int d), (a, b, c, d))
WRAP(int, fchown, (int a, uid_t b, gid_t c), (a, b, c))
WRAP(int, fchownat, (int a, const char *b, uid_t c, gid_t d, int e), (a, b, c, d, e))
WRAP(int, futimens, (int a, const struct timespec b[2]), (a, b))
WRAP(int, utimensat, (int a, const char *b, const struct timespec c[2], int d), (a, b, c, d))
WRAP(int, fsync, (int a), (a))
WRAP(int, fdatasync, (int a), (a))
WRAP(int, syncfs, (int a), (a))

static int opens(int folder, const char *name, int flags, va_list rest, int large)
{
    static int (*real)(int, const char *, int, ...), (*real64)(int, const char *, int, ...);
    if (!real) {
        real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat");
        real64 = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
    }
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    if (flags & (O_CREAT | O_TRUNC) && cut())
        return -1;
    return (large ? real64 : real)(folder, name, flags, mode);
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
