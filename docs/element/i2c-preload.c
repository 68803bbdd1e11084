/*
 * /dev/i2c-N for firmware that runs on Linux, with the emulated element of "joinsim
 * element serve" on the bus: the program is not changed, this library is loaded before
 * it.
 *
 *     cc -shared -fPIC -O2 -o i2c-preload.so i2c-preload.c        (C libraries older than
 *                                            glibc 2.34 want -ldl -lpthread behind it)
 *     JOINSIM_ELEMENT=127.0.0.1:7608 LD_PRELOAD=$PWD/i2c-preload.so ./firmware
 *
 * JOINSIM_ELEMENT       HOST:PORT or unix:PATH, as "element serve" shows it
 * JOINSIM_ELEMENT_NAME  which element there: DevEUI, serial number or #PLACE; without it,
 *                       the first one
 * JOINSIM_I2C           the one bus that is replaced, such as /dev/i2c-1; without it, all
 * JOINSIM_PTY           1: pseudo-terminals take modem lines, such as DTR, which they do
 *                       not have, for programs that speak the kit protocol over a UART
 *
 * What it takes: open and openat of the device, ioctl (I2C_SLAVE, I2C_SLAVE_FORCE,
 * I2C_RDWR, I2C_FUNCS), read and write. Not readv, writev, pread and pwrite: they go past
 * it, and find the file in memory that stands for the bus. Nor may a handler of signals
 * use the bus: what it interrupted may hold the lock. What is not acknowledged fails with ENXIO, as Linux's I2C fault codes say (some adapters' drivers
 * say EREMOTEIO): a chip that sleeps, idles or computes, another address, and every
 * write to address 0, which wakes the chip and which nobody on a bus acknowledges. Where
 * the element is gone, EIO; the next transaction looks for it again. SMBus calls are
 * EOPNOTSUPP.
 *
 * What the program gets for the bus is a file in memory of its own, which holds the
 * address that I2C_SLAVE chose. So close, dup, fork and exec do what they do with a
 * device, and nothing has to be remembered of descriptors here. All of a process's
 * descriptors share one connection, and the messages of one I2C_RDWR are not interrupted
 * in it; a child makes a connection of its own. Two processes are two hosts on the bus:
 * they have to agree whose turn it is.
 *
 * Programs that are linked statically, or ask the kernel without the C library, do not
 * load it; nor does fopen, which asks from inside of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* What the program would have called without this library. */
#define NEXT(name)                                                                         \
    ({                                                                                     \
        static __typeof__(&name) next;                                                     \
        if (next == NULL) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name);               \
        next;                                                                              \
    })
#ifndef PATIENCE
#define PATIENCE 10000 /* milliseconds that an answer may take, signals or not */
#endif
#define LONGEST 1024 /* bytes of one transaction */

/* What stands in the file of an open bus. */
struct bus {
    char magic[16];
    uint32_t address; /* by I2C_SLAVE */
};
static const char magic[16] = "joinsim i2c bus";

/* The connection, and which socket it was: a program that closes all descriptors closes
 * this one, too, and may have another file there then. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int element = -1;
static ino_t socket_node;

static int fail(int error, const char *why) {
    dprintf(2, "i2c-preload: %s\n", why);
    return -error;
}

static int64_t now(void) { /* in milliseconds */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int try(int family, const void *address, socklen_t size) {
    int64_t until = now() + PATIENCE;
    struct timeval patience = {.tv_sec = PATIENCE / 1000, .tv_usec = PATIENCE % 1000 * 1000};
    int yes = 1, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* of connect, too */
    while (connect(fd, address, size) != 0 && errno != EISCONN) {
        if (errno == EINTR && now() < until) continue; /* Linux goes on where it was */
        close(fd);
        return -1;
    }
    if (family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

/* dial gives a descriptor, or an error below 0. */
static int dial(void) {
    const char *address = getenv("JOINSIM_ELEMENT"), *port;
    int fd = -1;
    if (address == NULL || *address == 0)
        return fail(ENODEV, "set JOINSIM_ELEMENT to where \"joinsim element serve\" listens, HOST:PORT or unix:PATH");
    if (strncmp(address, "unix:", 5) == 0) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        if (strlen(address + 5) >= sizeof a.sun_path) return fail(ENODEV, "the path in JOINSIM_ELEMENT is too long");
        strcpy(a.sun_path, address + 5);
        fd = try(AF_UNIX, &a, sizeof a);
    } else {
        char host[256] = "";
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
        if ((port = strrchr(address, ':')) == NULL || (size_t)(port - address) >= sizeof host)
            return fail(ENODEV, "JOINSIM_ELEMENT is neither HOST:PORT nor unix:PATH");
        if (*address == '[' && port[-1] == ']') memcpy(host, address + 1, port - address - 2); /* [::1]:7608 */
        else memcpy(host, address, port - address);
        if (getaddrinfo(host, port + 1, &hints, &list) == 0) {
            for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) fd = try(a->ai_family, a->ai_addr, a->ai_addrlen);
            freeaddrinfo(list);
        }
    }
    return fd >= 0 ? fd : fail(ENXIO, "nobody answers: start \"joinsim element serve\", or correct JOINSIM_ELEMENT");
}

static int all(int sends, void *data, size_t size, int64_t until) {
    for (uint8_t *b = data; size > 0;) {
        ssize_t k = sends ? send(element, b, size, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(element, b, size, MSG_DONTWAIT);
        if (k < 0 && (errno == EAGAIN || errno == EINTR)) {
            struct pollfd ready = {.fd = element, .events = sends ? POLLOUT : POLLIN};
            int64_t left = until - now();
            if (left <= 0 || (poll(&ready, 1, left) < 0 && errno != EINTR)) return -1;
            continue;
        }
        if (k <= 0) return -1;
        b += k, size -= k;
    }
    return 0;
}

/* exchange sends a frame (what it is, address, length in two bytes, data) and gives 1
 * where it was acknowledged, 0 where it was not, or an error below 0. */
static int exchange(uint8_t kind, uint8_t address, uint8_t *data, uint16_t size) {
    uint8_t frame[4 + LONGEST] = {kind, address, size >> 8, size & 0xFF}, ok = 0;
    int sends = kind != 'R' && size > 0;
    int64_t until = now() + PATIENCE;
    if (sends) memcpy(frame + 4, data, size);
    if (all(1, frame, sends ? 4 + size : 4, until) == 0 && all(0, &ok, 1, until) == 0 && (!ok || kind != 'R' || all(0, data, size, until) == 0))
        return ok;
    close(element);
    element = -1;
    return fail(EIO, "the element hung up, or says nothing");
}

/* holds tells whether the connection is still the one that was made here. If not, its
 * descriptor is the program's, which closed ours. */
static int holds(void) {
    struct stat s;
    if (element >= 0 && (fstat(element, &s) != 0 || !S_ISSOCK(s.st_mode) || s.st_ino != socket_node)) element = -1;
    return element >= 0;
}

static int connected(void) {
    struct stat made;
    char *name = getenv("JOINSIM_ELEMENT_NAME");
    if (holds()) return 0;
    int fd = dial();
    if (fd < 0) return fd;
    element = fd;
    fstat(element, &made);
    socket_node = made.st_ino;
    if (name == NULL || *name == 0) return 0;
    int ok = strlen(name) > LONGEST ? 0 : exchange('S', 0, (uint8_t *)name, strlen(name));
    if (ok == 1) return 0;
    if (element >= 0) close(element);
    element = -1;
    return ok < 0 ? ok : fail(ENXIO, "there is no element of the name in JOINSIM_ELEMENT_NAME");
}

/* transact does one transaction with the lock held: 0, or an error below 0. */
static int transact(uint8_t kind, uint16_t address, void *data, size_t size) {
    if (size > LONGEST) return -EOPNOTSUPP;
    int ok = connected();
    if (ok == 0) ok = exchange(kind, address, data, size);
    return ok < 0 ? ok : ok && address != 0 ? 0 : -ENXIO;
}

/* alone and together bracket what speaks with the element: a thread that is cancelled
 * meanwhile ends behind it, and not with the lock. */
static int alone(void) {
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    pthread_mutex_lock(&lock);
    return before;
}

static void together(int before) {
    pthread_mutex_unlock(&lock);
    pthread_setcancelstate(before, NULL);
}

static ssize_t result(ssize_t n) {
    if (n >= 0) return n;
    errno = -n;
    return -1;
}

static ssize_t move(const struct bus *b, uint8_t kind, void *data, size_t size) {
    int before = alone(), error = transact(kind, b->address, data, size);
    together(before);
    return result(error < 0 ? error : (ssize_t)size);
}

static int several(const struct i2c_rdwr_ioctl_data *r) {
    int error = 0;
    if (r->nmsgs == 0 || r->nmsgs > I2C_RDWR_IOCTL_MAX_MSGS) return -EINVAL;
    int before = alone();
    for (uint32_t i = 0; i < r->nmsgs && error == 0; i++) {
        struct i2c_msg *m = &r->msgs[i];
        if (m->flags & (I2C_M_TEN | I2C_M_RECV_LEN)) error = -EOPNOTSUPP;
        else if (m->addr > 0x7F) error = -EINVAL;
        else error = transact(m->flags & I2C_M_RD ? 'R' : 'W', m->addr, m->buf, m->len);
        if (error == -ENXIO && m->flags & I2C_M_IGNORE_NAK) error = 0;
    }
    together(before);
    return error < 0 ? error : (int)r->nmsgs;
}

/* ours tells whether a descriptor is an open bus, and reads what stands in it. */
static int ours(int fd, struct bus *b) {
    struct stat s;
    int before = errno, yes = fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_nlink == 0 && s.st_size == sizeof *b &&
                              pread(fd, b, sizeof *b, 0) == sizeof *b && memcmp(b->magic, magic, sizeof magic) == 0;
    errno = before;
    return yes;
}

static int is_bus(const char *path) {
    const char *one = getenv("JOINSIM_I2C"), prefix[] = "/dev/i2c-";
    if (one != NULL && *one != 0) return strcmp(path, one) == 0;
    if (strncmp(path, prefix, sizeof prefix - 1) != 0) return 0;
    path += sizeof prefix - 1;
    return *path != 0 && path[strspn(path, "0123456789")] == 0;
}

static int open_bus(int flags) {
    struct bus b = {.address = 0};
    memcpy(b.magic, magic, sizeof magic);
    int before = alone(), error = connected();
    together(before);
    if (error < 0) return result(error);
    int fd = memfd_create("i2c", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
    if (fd >= 0 && pwrite(fd, &b, sizeof b, 0) != sizeof b) {
        close(fd);
        fd = result(-EIO);
    }
    return fd;
}

/* A child may not speak between the frames of its parent. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void in_parent(void) { pthread_mutex_unlock(&lock); }
static void in_child(void) {
    if (holds()) close(element);
    element = -1;
    pthread_mutex_unlock(&lock);
}
__attribute__((constructor)) static void begin(void) { pthread_atfork(before_fork, in_parent, in_child); }

/* mode gives what follows flags that make a file. */
#define MODE(flags)                                                                        \
    mode_t mode = 0;                                                                       \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) {                         \
        va_list list;                                                                      \
        va_start(list, flags);                                                             \
        mode = va_arg(list, unsigned);                                                     \
        va_end(list);                                                                      \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return is_bus(path) ? open_bus(flags) : NEXT(open)(path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return is_bus(path) ? open_bus(flags) : NEXT(openat)(dir, path, flags, mode);
}
ssize_t read(int fd, void *data, size_t size) {
    struct bus b;
    return ours(fd, &b) ? move(&b, 'R', data, size) : NEXT(read)(fd, data, size);
}
ssize_t write(int fd, const void *data, size_t size) {
    struct bus b;
    return ours(fd, &b) ? move(&b, 'W', (void *)data, size) : NEXT(write)(fd, data, size);
}

static int control(int fd, struct bus *b, unsigned request, void *argument) {
    switch (request) {
    case I2C_SLAVE:
    case I2C_SLAVE_FORCE:
        if ((uintptr_t)argument > 0x7F) return -EINVAL;
        b->address = (uintptr_t)argument;
        return pwrite(fd, b, sizeof *b, 0) == sizeof *b ? 0 : -EIO;
    case I2C_RDWR: return several(argument);
    case I2C_FUNCS: *(unsigned long *)argument = I2C_FUNC_I2C | I2C_FUNC_PROTOCOL_MANGLING; return 0;
    case I2C_RETRIES:
    case I2C_TIMEOUT: return 0;
    case I2C_TENBIT:
    case I2C_PEC: return argument == NULL ? 0 : -EOPNOTSUPP;
    case I2C_SMBUS: return -EOPNOTSUPP;
    }
    return -ENOTTY;
}
#ifdef __GLIBC__
int ioctl(int fd, unsigned long request, ...) {
#else
int ioctl(int fd, int request, ...) {
#endif
    struct bus b;
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (ours(fd, &b)) return result(control(fd, &b, request, argument));
    int got = NEXT(ioctl)(fd, request, argument);
    const char *lines = getenv("JOINSIM_PTY");
    if (got != 0 && (request == TIOCMBIS || request == TIOCMBIC || request == TIOCMSET) && lines != NULL && *lines == '1' && isatty(fd))
        got = 0;
    return got;
}

/* The names under which programs of glibc ask for the same: for large files, and with
 * checks by the compiler. */
#ifdef __GLIBC__
int open64(const char *path, int flags, ...) {
    MODE(flags)
    return is_bus(path) ? open_bus(flags) : NEXT(open64)(path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return is_bus(path) ? open_bus(flags) : NEXT(openat64)(dir, path, flags, mode);
}
int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags) { return is_bus(path) ? open_bus(flags) : NEXT(__open_2)(path, flags); }
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags) { return is_bus(path) ? open_bus(flags) : NEXT(__open64_2)(path, flags); }
int __openat_2(int dir, const char *path, int flags);
int __openat_2(int dir, const char *path, int flags) {
    return is_bus(path) ? open_bus(flags) : NEXT(__openat_2)(dir, path, flags);
}
int __openat64_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags) {
    return is_bus(path) ? open_bus(flags) : NEXT(__openat64_2)(dir, path, flags);
}
ssize_t __read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __read_chk(int fd, void *data, size_t size, size_t room) {
    struct bus b;
    return size <= room && ours(fd, &b) ? move(&b, 'R', data, size) : NEXT(__read_chk)(fd, data, size, room);
}
#endif
