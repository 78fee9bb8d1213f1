// Faults of one host, switched while its process runs: a wall clock that is wrong, and syncs that fail or are slow.
//
// Preloaded into a glibc program. The harness writes one page, the control file named by FAULTS_CONTROL, which is
// mapped here; its layout is that of jepsen/src/site/faults.rs. CLOCK_MONOTONIC stays honest, and so do the times that
// the kernel gives to files. A program that cannot map its control file ends: a fault that is asked for and does
// not happen would make a run say more than it saw.
//
//   0  u32 magic "TFLT"         24  i64 clock rate, ppb      56  u64 loads
//   4  u32 version              32  i64 clock anchor, ns     64  u64 syncs that failed
//   8  u64 sequence             40  i64 sync delay, ns       72  u64 syncs that were delayed
//  16  i64 clock offset, ns     48  i64 sync errno           80  u64 readings of the wall clock

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x544c4654u
#define VERSION 1u
#define PAGE_BYTES 4096
#define BILLION 1000000000LL

struct control {
    uint32_t magic;
    uint32_t version;
    _Atomic uint64_t sequence;
    _Atomic int64_t clock_offset_ns;
    _Atomic int64_t clock_rate_ppb;
    _Atomic int64_t clock_anchor_ns;
    _Atomic int64_t sync_delay_ns;
    _Atomic int64_t sync_errno;
    _Atomic uint64_t loads;
    _Atomic uint64_t syncs_failed;
    _Atomic uint64_t syncs_delayed;
    _Atomic uint64_t clock_readings;
};

static struct control *control;

static void refuse(const char *why, size_t length) {
    if (write(2, why, length) < 0) {
        _exit(125);
    }
    _exit(125);
}
#define REFUSE(why) refuse(why "\n", sizeof(why "\n") - 1)

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("FAULTS_CONTROL");
    if (path == NULL) {
        REFUSE("faults: FAULTS_CONTROL is not set");
    }
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        REFUSE("faults: cannot open the control file");
    }
    struct control *mapped = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) {
        REFUSE("faults: cannot map the control file");
    }
    if (mapped->magic != MAGIC || mapped->version != VERSION) {
        REFUSE("faults: the control file is of another version");
    }
    atomic_fetch_add(&mapped->loads, 1);
    control = mapped;
}

// The next library's: the C library reads the kernel's page, without a system call.
static int real_clock(clockid_t clock, struct timespec *time) {
    static int (*next)(clockid_t, struct timespec *);
    if (next == NULL) {
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    return next == NULL ? (int)syscall(SYS_clock_gettime, clock, time) : next(clock, time);
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    real_clock(CLOCK_MONOTONIC, &now);
    return now.tv_sec * BILLION + now.tv_nsec;
}

// How far the wall clock of this host is ahead. The three numbers belong together: read again while they are written.
static int64_t clock_error_ns(void) {
    for (;;) {
        uint64_t before = atomic_load(&control->sequence);
        int64_t offset = atomic_load(&control->clock_offset_ns);
        int64_t rate = atomic_load(&control->clock_rate_ppb);
        int64_t anchor = atomic_load(&control->clock_anchor_ns);
        if (before % 2 == 0 && before == atomic_load(&control->sequence)) {
            if (rate == 0) {
                return offset;
            }
            return offset + (int64_t)((__int128)(monotonic_ns() - anchor) * rate / BILLION);
        }
    }
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = real_clock(clock, time);
    int wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (result != 0 || !wall || control == NULL) {
        return result;
    }
    atomic_fetch_add(&control->clock_readings, 1);
    int64_t error = clock_error_ns();
    int64_t nanoseconds = time->tv_nsec + error % BILLION;
    time->tv_sec += error / BILLION;
    if (nanoseconds < 0) {
        nanoseconds += BILLION;
        time->tv_sec -= 1;
    } else if (nanoseconds >= BILLION) {
        nanoseconds -= BILLION;
        time->tv_sec += 1;
    }
    time->tv_nsec = nanoseconds;
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (result == 0) {
        time->tv_sec = now.tv_sec;
        time->tv_usec = now.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return (time_t)-1;
    }
    if (out != NULL) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}

// Whether a sync fails (errno is set then). Waits first where syncs are slow.
static int sync_fails(void) {
    if (control == NULL) {
        return 0;
    }
    int64_t delay = atomic_load(&control->sync_delay_ns);
    if (delay > 0) {
        atomic_fetch_add(&control->syncs_delayed, 1);
        struct timespec rest = {delay / BILLION, delay % BILLION};
        while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
        }
    }
    int64_t failure = atomic_load(&control->sync_errno);
    if (failure == 0) {
        return 0;
    }
    atomic_fetch_add(&control->syncs_failed, 1);
    errno = (int)failure;
    return 1;
}

#define NEXT(name, type) ((type)dlsym(RTLD_NEXT, name))

int fsync(int file) {
    return sync_fails() ? -1 : NEXT("fsync", int (*)(int))(file);
}

int fdatasync(int file) {
    return sync_fails() ? -1 : NEXT("fdatasync", int (*)(int))(file);
}

int syncfs(int file) {
    return sync_fails() ? -1 : NEXT("syncfs", int (*)(int))(file);
}

int sync_file_range(int file, off64_t from, off64_t length, unsigned int flags) {
    if (sync_fails()) {
        return -1;
    }
    return NEXT("sync_file_range", int (*)(int, off64_t, off64_t, unsigned int))(file, from, length, flags);
}

int msync(void *from, size_t length, int flags) {
    return sync_fails() ? -1 : NEXT("msync", int (*)(void *, size_t, int))(from, length, flags);
}
