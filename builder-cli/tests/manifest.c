/*
 * Lists a file system, the same way inside a build and outside: what find, stat, getfattr and a checksum would say
 * together, without needing any of them in the image.
 *
 *   manifest list DIR [EXCLUDED PATH]...   one line a path below DIR, in no order:
 *       path type mode uid gid size-or-device seconds nanoseconds device:inode links content xattrs
 *   manifest setxattr PATH NAME HEX
 *   manifest touch PATH SECONDS NANOSECONDS
 *
 * Bytes that are not plain are written \xHH. Content is a checksum of the blocks that are not zero with their offsets, so
 * that holes cost nothing and weigh nothing. Excluded paths and what is below them are left out.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static char **excluded;
static int excluded_count;

static void die(const char *what, const char *path)
{
    fprintf(stderr, "manifest: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static void put_bytes(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] > ' ' && bytes[i] < 127 && bytes[i] != '\\')
            putchar(bytes[i]);
        else
            printf("\\x%02x", bytes[i]);
    }
}

static uint64_t mix(uint64_t hash, const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    return hash;
}

static uint64_t checksum(int dir, const char *name)
{
    static unsigned char block[4096], zeros[4096];
    uint64_t hash = 0xcbf29ce484222325ULL;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        die("open", name);
    off_t at = lseek(fd, 0, SEEK_DATA);
    if (at < 0 && errno != ENXIO)
        at = 0;
    while (at >= 0) {
        at -= at % (off_t)sizeof block;
        ssize_t got = pread(fd, block, sizeof block, at);
        if (got < 0)
            die("read", name);
        if (got == 0)
            break;
        if (memcmp(block, zeros, (size_t)got) != 0) {
            hash = mix(hash, (unsigned char *)&at, sizeof at);
            hash = mix(hash, block, (size_t)got);
        }
        at += got;
        if (got < (ssize_t)sizeof block)
            break;
        at = lseek(fd, at, SEEK_DATA);
    }
    close(fd);
    return hash;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_xattrs(int dir, const char *name)
{
    static char names[65536], path[64 + 256];
    static unsigned char value[65536];
    char *sorted[1024];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir, name);
    ssize_t len = llistxattr(path, names, sizeof names);
    if (len < 0 && errno != ENOTSUP)
        die("list attributes of", path);
    for (char *at = names; at < names + len && count < 1024; at += strlen(at) + 1)
        sorted[count++] = at;
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++) {
        ssize_t size = lgetxattr(path, sorted[i], value, sizeof value);
        if (size < 0)
            die("read attribute of", path);
        putchar(' ');
        put_bytes((unsigned char *)sorted[i], strlen(sorted[i]));
        putchar('=');
        for (ssize_t k = 0; k < size; k++)
            printf("%02x", value[k]);
    }
}

static char type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR: return 'd';
    case S_IFREG: return 'f';
    case S_IFLNK: return 'l';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    case S_IFIFO: return 'p';
    default: return 's';
    }
}

static void put_entry(int dir, const char *name, const char *path, const struct stat *st)
{
    char type = type_of(st->st_mode);
    put_bytes((const unsigned char *)path, strlen(path));
    printf(" %c %o %u %u ", type, st->st_mode & 07777, st->st_uid, st->st_gid);
    if (type == 'c' || type == 'b')
        printf("%u,%u", major(st->st_rdev), minor(st->st_rdev));
    else
        printf("%lld", type == 'd' ? 0LL : (long long)st->st_size);
    printf(" %lld %ld %llu:%llu %llu ", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
           (unsigned long long)st->st_dev, (unsigned long long)st->st_ino,
           type == 'd' ? 1ULL : (unsigned long long)st->st_nlink);
    if (type == 'f') {
        printf("%016llx", (unsigned long long)checksum(dir, name));
    } else if (type == 'l') {
        unsigned char target[4096];
        ssize_t len = readlinkat(dir, name, (char *)target, sizeof target);
        if (len < 0)
            die("read link", name);
        put_bytes(target, (size_t)len);
    } else {
        putchar('-');
    }
    put_xattrs(dir, name);
    putchar('\n');
}

static int is_excluded(const char *path)
{
    for (int i = 0; i < excluded_count; i++)
        if (strcmp(path, excluded[i]) == 0)
            return 1;
    return 0;
}

static void list(int dir, const char *above)
{
    DIR *stream = fdopendir(dup(dir));
    if (!stream)
        die("list", above);
    rewinddir(stream);
    for (struct dirent *entry; (entry = readdir(stream));) {
        char *path = NULL;
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (asprintf(&path, "%s%s%s", above, *above ? "/" : "", entry->d_name) < 0)
            die("remember", above);
        if (!is_excluded(path)) {
            if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
                die("stat", path);
            put_entry(dir, entry->d_name, path, &st);
            if (S_ISDIR(st.st_mode)) {
                int below = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
                if (below < 0)
                    die("open", path);
                list(below, path);
                close(below);
            }
        }
        free(path);
    }
    closedir(stream);
}

static int set_attribute(const char *path, const char *name, const char *hex)
{
    unsigned char value[4096];
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len && i < sizeof value; i++) {
        unsigned byte;
        sscanf(hex + 2 * i, "%2x", &byte);
        value[i] = (unsigned char)byte;
    }
    if (lsetxattr(path, name, value, len, 0) != 0)
        die("set attribute of", path);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "list") == 0) {
        int root = open(argv[2], O_RDONLY | O_DIRECTORY);
        if (root < 0)
            die("open", argv[2]);
        excluded = argv + 3;
        excluded_count = argc - 3;
        list(root, "");
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (argc == 5 && strcmp(argv[1], "setxattr") == 0)
        return set_attribute(argv[2], argv[3], argv[4]);
    if (argc == 5 && strcmp(argv[1], "touch") == 0) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {atoll(argv[3]), atol(argv[4])}};
        if (utimensat(AT_FDCWD, argv[2], times, AT_SYMLINK_NOFOLLOW) != 0)
            die("set time of", argv[2]);
        return 0;
    }
    fprintf(stderr, "usage: manifest list DIR [EXCLUDED]... | setxattr PATH NAME HEX | touch PATH SECONDS NANOS\n");
    return 2;
}
