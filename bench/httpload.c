/* A load of HTTP/1.1 requests over connections that stay: each sends DEPTH
 * requests in one write and the next ones when all of them are answered. Every
 * answer is checked: its status, its length and its octets (of bodies above
 * 16 KiB one in eight whole, of the others what comes with the head; the rest is
 * discarded unread, since copying it would cost as much as sending it).
 *
 * usage: httpload LIST POOL PORT SECONDS CONNECTIONS DEPTH UNIQUE
 *
 * LIST is made of records, little endian: struct request, then the head. Where
 * unique is not 0, ten octets of the head there are replaced by a number that
 * has not been used: UNIQUE and up. SECONDS 0 goes through the list once, -1
 * does so too and then keeps the connections until standard input ends.
 * It prints "result", answers, seconds, octets of bodies, p50 and p99 in µs, and how
 * many connections the server closed between two answers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 256 << 10, HEAD = 8 << 10, OUT = 64 << 10, EVENTS = 256, WHOLE = 16 << 10, SAMPLED = 8, DEEP = 64 };

struct request {
	uint32_t head, status;
	uint64_t from, size;
	uint32_t unique, pad;
};

struct conn {
	int fd, asked, answered; /* of this batch */
	struct request *batch[DEEP];
	int64_t sent; /* µs */
	char *part;   /* of a head that is not complete */
	int have;
	uint64_t left; /* of a body */
	const char *want;
	int unchecked;
};

static struct request **list;
static const char *pool;
static char room[ROOM], out[OUT + HEAD];
static long listed, next_request, answers, closed, hist[64 * 32];
static unsigned long unique, octets;
static int depth, poller, once, port;
static int64_t end;

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void fail(const char *what) {
	fprintf(stderr, "httpload: %s\n", what);
	exit(1);
}

/* wrong shows an answer that is not what was asked for. */
static void wrong(const char *what, struct request *q, const char *got, int len) {
	fprintf(stderr, "httpload: %s; asked:\n%.*s\ngot:\n%.*s\n", what, (int)q->head, (char *)(q + 1), len < 600 ? len : 600, got);
	exit(1);
}

/* bucket has 32 steps for each power of two. */
static int bucket(uint64_t v) {
	if (v < 32)
		return v;
	int e = 63 - __builtin_clzll(v);
	return (e - 4) * 32 + ((v >> (e - 5)) & 31);
}

static double value(int b) {
	return b < 32 ? b : (double)(32 + b % 32) * (1ULL << (b / 32 - 1));
}

static double quantile(double q) {
	long want = answers * q, sum = 0;
	for (int b = 0; b < 64 * 32; b++)
		if ((sum += hist[b]) > want)
			return value(b);
	return 0;
}

static void dial(struct conn *c) {
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(port)};
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
	int one = 1;
	c->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&at, sizeof at) < 0)
		fail("connect");
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
}

/* ask sends the next batch; 0 when there is none. */
static int ask(struct conn *c) {
	size_t n = 0;
	c->asked = c->answered = 0;
	while (c->asked < depth) {
		if (next_request == listed) {
			if (once)
				break;
			next_request = 0;
		}
		struct request *q = list[next_request++];
		memcpy(out + n, q + 1, q->head);
		if (q->unique) {
			char number[16];
			snprintf(number, sizeof number, "%010lu", unique++ % 10000000000UL);
			memcpy(out + n + q->unique, number, 10);
		}
		n += q->head;
		c->batch[c->asked++] = q;
	}
	if (!c->asked)
		return 0;
	c->sent = now();
	if (send(c->fd, out, n, MSG_NOSIGNAL) != (ssize_t)n)
		fail("send");
	return 1;
}

static long number_after(const char *p, const char *stop) {
	long v = 0;
	while (p < stop && *p == ' ')
		p++;
	while (p < stop && *p >= '0' && *p <= '9')
		v = v * 10 + *p++ - '0';
	return v;
}

/* begin reads a complete head, and says what its body must be. */
static void begin(struct conn *c, const char *head, const char *stop) {
	struct request *q = c->batch[c->answered];
	long length = -1;
	if (strncmp(head, "HTTP/1.1 ", 9) || number_after(head + 9, stop) != q->status)
		wrong("another status", q, head, stop - head);
	for (const char *p = head; (p = memchr(p, '\n', stop - p)) && ++p < stop;)
		if (stop - p > 15 && !strncasecmp(p, "content-length:", 15))
			length = number_after(p + 15, stop);
	if (length != (long)q->size)
		wrong("another length", q, head, stop - head);
	c->left = q->size;
	c->want = pool + q->from;
	c->unchecked = q->size > WHOLE && answers % SAMPLED;
}

/* body takes n octets of a body, and ends the answer with the last. */
static void body(struct conn *c, const char *got, uint64_t n) {
	if (got && memcmp(got, c->want, n))
		wrong("other octets", c->batch[c->answered], got, 0);
	c->want += n, c->left -= n, octets += n;
	if (c->left)
		return;
	c->answered++, answers++;
	hist[bucket(now() - c->sent)]++;
}

/* take reads once; 0 when the connection has nothing more to do. */
static int take(struct conn *c) {
	if (c->left && c->unchecked) {
		ssize_t n = recv(c->fd, NULL, c->left, MSG_TRUNC);
		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n <= 0)
			fail("a body ended early");
		body(c, NULL, n);
		return c->left || c->answered < c->asked || ((once || now() < end) && ask(c));
	}
	int had = c->have;
	if (had)
		memcpy(room, c->part, had);
	ssize_t n = recv(c->fd, room + had, ROOM - had, 0);
	if (n < 0 && errno == EAGAIN)
		return 1;
	if (n <= 0) {
		if (c->answered || c->left || had)
			fail("the connection ended within an answer");
		close(c->fd);
		closed++;
		dial(c);
		fail("the connection was closed before an answer");
	}
	c->have = 0;
	for (char *p = room, *stop = room + had + n; p < stop;) {
		if (c->left) {
			uint64_t k = (uint64_t)(stop - p) < c->left ? (uint64_t)(stop - p) : c->left;
			body(c, p, k);
			p += k;
			continue;
		}
		if (c->answered == c->asked)
			fail("more octets than asked for");
		char *empty = memmem(p, stop - p, "\r\n\r\n", 4);
		if (!empty) {
			if ((c->have = stop - p) > HEAD)
				fail("a head is too long");
			if (!c->part)
				c->part = malloc(HEAD);
			memcpy(c->part, p, c->have);
			break;
		}
		begin(c, p, empty);
		p = empty + 4;
		if (!c->left)
			body(c, p, 0);
	}
	if (c->left || c->answered < c->asked)
		return 1;
	return (once || now() < end) && ask(c);
}

static void read_list(const char *path) {
	struct stat st;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		fail(path);
	char *all = malloc(st.st_size), *p = all;
	for (off_t n = 0; n < st.st_size;) {
		ssize_t k = read(fd, all + n, st.st_size - n);
		if (k <= 0)
			fail(path);
		n += k;
	}
	close(fd);
	list = malloc(st.st_size / sizeof(struct request) * sizeof *list + sizeof *list);
	while (p < all + st.st_size) {
		list[listed++] = (struct request *)p;
		p += sizeof(struct request) + (((struct request *)p)->head + 7) / 8 * 8;
	}
}

int main(int argc, char **argv) {
	struct epoll_event events[EVENTS];
	struct stat st;
	if (argc != 8) {
		fprintf(stderr, "usage: httpload LIST POOL PORT SECONDS CONNECTIONS DEPTH UNIQUE\n");
		return 2;
	}
	int fd = open(argv[2], O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0 || (pool = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0)) == MAP_FAILED)
		fail(argv[2]);
	read_list(argv[1]);
	port = atoi(argv[3]);
	double seconds = atof(argv[4]);
	long open_conns = atol(argv[5]), busy = 0;
	depth = atoi(argv[6]);
	unique = strtoul(argv[7], NULL, 10);
	once = seconds <= 0;
	if (depth < 1 || depth > DEEP || depth * 1024 > OUT)
		fail("DEPTH is out of range");
	struct conn *all = calloc(open_conns, sizeof *all);
	poller = epoll_create1(0);
	for (long i = 0; i < open_conns; i++)
		dial(&all[i]);
	int64_t start = now();
	end = start + seconds * 1e6;
	for (long i = 0; i < open_conns; i++)
		busy += ask(&all[i]);
	while (busy) {
		int n = epoll_wait(poller, events, EVENTS, 10000);
		if (n == 0)
			fail("no answer within 10 s");
		for (int i = 0; i < n; i++)
			if (!take(events[i].data.ptr))
				busy--;
	}
	printf("result %ld %.6f %lu %.0f %.0f %ld\n", answers, (now() - start) / 1e6, octets, quantile(0.5), quantile(0.99), closed);
	fflush(stdout);
	if (seconds < 0)
		while (read(0, room, sizeof room) > 0)
			;
	return 0;
}
