/* The floor, and the origin: an HTTP/1.1 server that only finds the end of each
 * request's head and writes octets of a file that it has in memory. It reads
 * once and writes once for whatever came together; no cache can cost less than
 * the kernel makes that cost.
 *
 *   /o/FROM/SIZE/...                octets FROM to FROM+SIZE of POOL
 *   /v/FROM/SIZE/FROM/SIZE/...      the first for who takes gzip, else the second
 *   /count                          how many requests there were
 *
 * usage: httpfloor PORT POOL */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 32 << 10, OUT = 1 << 20, SMALL = 16 << 10, BY_FILE = 64 << 10, HEAD = 512, EVENTS = 256, CONNS = 65536 };

struct conn {
	char *in;        /* what has come of a head that is not complete */
	int have;
	char *rest;      /* what could not be written yet, */
	size_t rest_len;
	off_t at;        /* and then octets of the pool */
	size_t left;
};

static struct conn conns[CONNS];
static char out[OUT + HEAD + SMALL], room[ROOM], date[64];
static size_t filled, pool_size;
static const char *pool;
static int poller, pool_fd;
static long count;

static void fail(const char *what) {
	perror(what);
	exit(1);
}

static void drop(int fd) {
	struct conn *c = &conns[fd];
	free(c->in);
	free(c->rest);
	*c = (struct conn){0};
	close(fd);
}

/* await asks for the event that lets a connection go on. */
static void await(int fd, unsigned events) {
	struct epoll_event e = {.events = events, .data.fd = fd};
	epoll_ctl(poller, EPOLL_CTL_MOD, fd, &e);
}

/* large writes what is left of a body; -1 when the connection is gone. */
static int large(int fd) {
	struct conn *c = &conns[fd];
	while (c->left > 0) {
		ssize_t n;
		if (c->left >= BY_FILE) {
			off_t at = c->at;
			n = sendfile(fd, pool_fd, &at, c->left);
		} else {
			n = write(fd, pool + c->at, c->left);
		}
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		c->at += n, c->left -= n;
	}
	return 0;
}

/* flush writes out, then the body that the connection owes. */
static int flush(int fd) {
	struct conn *c = &conns[fd];
	struct iovec v[2] = {{out, filled}, {(char *)pool + c->at, c->left < BY_FILE ? c->left : 0}};
	ssize_t n = filled ? writev(fd, v, v[1].iov_len ? 2 : 1) : 0;
	if (n < 0 && errno != EAGAIN)
		return -1;
	if (n < 0)
		n = 0;
	if ((size_t)n < filled) {
		c->rest_len = filled - n;
		c->rest = memcpy(malloc(c->rest_len), out + n, c->rest_len);
	} else {
		c->at += n - filled, c->left -= n - filled;
	}
	filled = 0;
	if (c->rest == NULL && large(fd) < 0)
		return -1;
	if (c->rest || c->left)
		await(fd, EPOLLOUT);
	return 0;
}

/* resume goes on with what could not be written before. */
static int resume(int fd) {
	struct conn *c = &conns[fd];
	if (c->rest) {
		ssize_t n = write(fd, c->rest, c->rest_len);
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		memmove(c->rest, c->rest + n, c->rest_len -= n);
		if (c->rest_len)
			return 0;
		free(c->rest);
		c->rest = NULL;
	}
	if (large(fd) < 0)
		return -1;
	if (!c->left)
		await(fd, EPOLLIN);
	return 0;
}

/* answer appends a response to out, but for a large body. */
static void answer(struct conn *c, const char *head, size_t len) {
	unsigned long n[4] = {0}, from, size;
	char kind = len > 6 ? head[5] : 0, *p = (char *)head + 6;
	const char *coding = "";
	char number[24];
	if (kind == 'c') {
		size = snprintf(number, sizeof number, "%ld", count);
		filled += sprintf(out + filled, "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %lu\r\n\r\n%s", size, number);
		return;
	}
	count++;
	for (int i = 0; i < (kind == 'v' ? 4 : 2) && *p == '/'; i++)
		n[i] = strtoul(p + 1, &p, 10);
	from = n[0], size = n[1];
	if (kind == 'v') {
		coding = "Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\n";
		if (!memmem(head, len, "gzip", 4))
			from = n[2], size = n[3], coding = "Vary: Accept-Encoding\r\n";
	}
	if ((kind != 'o' && kind != 'v') || from + size > pool_size) {
		filled += sprintf(out + filled, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
		return;
	}
	filled += sprintf(out + filled, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: application/octet-stream\r\nCache-Control: max-age=86400\r\n%sETag: \"%lx-%lx\"\r\n"
		"Content-Length: %lu\r\n\r\n", date, coding, from, size, size);
	if (size <= SMALL) {
		memcpy(out + filled, pool + from, size);
		filled += size;
	} else {
		c->at = from, c->left = size;
	}
}

/* serve reads once, and answers every complete head; -1 when the connection is gone. */
static int serve(int fd) {
	struct conn *c = &conns[fd];
	int had = c->have;
	if (had)
		memcpy(room, c->in, had);
	ssize_t n = read(fd, room + had, ROOM - had);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return -1;
	char *p = room, *end = room + had + n;
	while (p < end) {
		char *stop = memmem(p, end - p, "\r\n\r\n", 4);
		if (!stop)
			break;
		answer(c, p, stop - p);
		p = stop + 4;
		if (c->left || filled > OUT) {
			if (flush(fd) < 0)
				return -1;
			if (c->rest || c->left) /* the rest of what was asked waits */
				break;
		}
	}
	if (filled && flush(fd) < 0)
		return -1;
	c->have = end - p;
	if (c->have) {
		if (c->have == ROOM)
			return -1;
		if (!c->in)
			c->in = malloc(ROOM);
		memcpy(c->in, p, c->have);
	}
	return 0;
}

static void tell_time(void) {
	static time_t last;
	time_t now = time(NULL);
	if (now != last)
		strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
	last = now;
}

int main(int argc, char **argv) {
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct epoll_event e = {.events = EPOLLIN}, events[EVENTS];
	struct stat st;
	int one = 1, ln = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (argc != 3) {
		fprintf(stderr, "usage: httpfloor PORT POOL\n");
		return 2;
	}
	if ((pool_fd = open(argv[2], O_RDONLY)) < 0 || fstat(pool_fd, &st) < 0)
		fail(argv[2]);
	pool_size = st.st_size;
	if ((pool = mmap(NULL, pool_size, PROT_READ, MAP_SHARED | MAP_POPULATE, pool_fd, 0)) == MAP_FAILED)
		fail("mmap");
	at.sin_port = htons(atoi(argv[1]));
	setsockopt(ln, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(ln, (struct sockaddr *)&at, sizeof at) < 0 || listen(ln, 4096) < 0)
		fail("bind");
	poller = epoll_create1(0);
	e.data.fd = ln;
	epoll_ctl(poller, EPOLL_CTL_ADD, ln, &e);
	for (;;) {
		int n = epoll_wait(poller, events, EVENTS, -1);
		tell_time();
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd != ln) {
				if ((events[i].events & EPOLLOUT ? resume(fd) : serve(fd)) < 0)
					drop(fd);
				continue;
			}
			while ((fd = accept4(ln, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				if (fd >= CONNS) {
					close(fd);
					continue;
				}
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
				e = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
				epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
			}
		}
	}
}
