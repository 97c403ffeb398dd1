// Stands before ClickHouse's calls of rename. A new part is committed by one, from tmp_insert_... to its name. When the file
// $COMMIT_KILL is there, the process ends right before or right after the next of these, as the file says, once.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int rename(const char *from, const char *to) {
	static int (*real)(const char *, const char *);
	if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
	const char *plan = getenv("COMMIT_KILL");
	int armed = 0;
	char when[8] = {0};
	if (plan && strstr(from, "tmp_insert")) {
		int fd = open(plan, O_RDONLY);
		if (fd >= 0) {
			armed = read(fd, when, sizeof when - 1) > 0;
			close(fd);
			unlink(plan);
		}
	}
	if (armed && when[0] == 'b') kill(getpid(), SIGKILL);
	int failed = real(from, to);
	if (armed) kill(getpid(), SIGKILL);
	return failed;
}
