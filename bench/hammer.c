/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections by the thousand, for tests and benchmarks.
 *
 *     hammer serve ADDRESS PORT                   accept and close (UDP: answer), until killed
 *     hammer dial  ADDRESS PORT COUNT RATE        connect, reset, again; RATE a second, 0 as fast as it goes
 *     hammer hold  ADDRESS PORT COUNT SECONDS     start COUNT connects, leave them to retransmit, then give
 * up hammer again ADDRESS PORT COUNT FROM        as dial, but always from the source port FROM hammer udp
 * ADDRESS PORT COUNT             one datagram each from COUNT sockets, and its answer
 *
 * Prints "CONNECTED FAILED SECONDS". Connections are closed with a reset, so no TIME_WAIT uses up the ports.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct addrinfo *target;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_for(double seconds)
{
	struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};

	if (seconds > 0)
		nanosleep(&t, NULL);
}

static int must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(2);
	}
	return result;
}

static int make_socket(int type)
{
	int one = 1, fd = must(socket(target->ai_family, type, 0), "socket");

	must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), "SO_REUSEADDR");
	return fd;
}

static int make_client(void)
{
	struct linger reset = {1, 0};
	int fd = make_socket(SOCK_STREAM);

	must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), "SO_LINGER");
	return fd;
}

static void from_port(int fd, int port)
{
	struct sockaddr_storage any = {.ss_family = target->ai_family};

	/* sin_port and sin6_port are in the same place */
	((struct sockaddr_in *)&any)->sin_port = htons(port);
	must(bind(fd, (struct sockaddr *)&any, target->ai_addrlen), "bind");
}

static void serve(void)
{
	int tcp = make_socket(SOCK_STREAM), udp = make_socket(SOCK_DGRAM);

	must(bind(tcp, target->ai_addr, target->ai_addrlen), "bind tcp");
	must(listen(tcp, 4096), "listen");
	must(bind(udp, target->ai_addr, target->ai_addrlen), "bind udp");
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			struct sockaddr_storage from;
			socklen_t length = sizeof(from);
			char byte;

			if (recvfrom(udp, &byte, 1, 0, (struct sockaddr *)&from, &length) >= 0)
				sendto(udp, &byte, 1, 0, (struct sockaddr *)&from, length);
		}
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int fd = accept(tcp, NULL, NULL);

		if (fd >= 0)
			close(fd);
	}
}

static void report(int connected, int failed, double start)
{
	printf("%d %d %.3f\n", connected, failed, now() - start);
}

static void dial(int count, double rate, int from)
{
	int connected = 0, failed = 0;
	double start = now();

	for (int i = 0; i < count; i++) {
		int fd = make_client();

		if (rate > 0)
			pause_for(start + i / rate - now());
		if (from)
			from_port(fd, from);
		if (connect(fd, target->ai_addr, target->ai_addrlen) == 0)
			connected++;
		else if (!failed++)
			perror("connect");
		close(fd);
	}
	report(connected, failed, start);
}

static void hold(int count, double seconds)
{
	struct rlimit limit = {count + 64, count + 64};
	double start = now();

	must(setrlimit(RLIMIT_NOFILE, &limit), "RLIMIT_NOFILE");
	for (int i = 0; i < count; i++) {
		int fd = make_client();

		must(fcntl(fd, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
		connect(fd, target->ai_addr, target->ai_addrlen);
	}
	pause_for(seconds);
	report(0, count, start);
}

static void udp(int count, int from)
{
	struct timeval patience = {.tv_sec = 1};
	int connected = 0;
	double start = now();

	for (int i = 0; i < count; i++) {
		int fd = make_socket(SOCK_DGRAM);
		char byte = 0;

		must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "SO_RCVTIMEO");
		from_port(fd, from + i);
		must(connect(fd, target->ai_addr, target->ai_addrlen), "connect udp");
		for (int round = 0; round < 3; round++) {
			send(fd, &byte, 1, 0);
			connected += recv(fd, &byte, 1, 0) == 1 && round == 2;
		}
		close(fd);
	}
	report(connected, count - connected, start);
}

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};

	if (argc < 4 || getaddrinfo(argv[2], argv[3], &hints, &target) != 0) {
		fputs("usage: see the top of hammer.c\n", stderr);
		return 64;
	}
	if (!strcmp(argv[1], "serve") && argc == 4)
		serve();
	else if (!strcmp(argv[1], "dial") && argc == 6)
		dial(atoi(argv[4]), atof(argv[5]), 0);
	else if (!strcmp(argv[1], "again") && argc == 6)
		dial(atoi(argv[4]), 0, atoi(argv[5]));
	else if (!strcmp(argv[1], "hold") && argc == 6)
		hold(atoi(argv[4]), atof(argv[5]));
	else if (!strcmp(argv[1], "udp") && argc == 6)
		udp(atoi(argv[4]), atoi(argv[5]));
	else
		return 64;
	return 0;
}
