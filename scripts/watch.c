// Run a program and write down each further program that it or a process of its starts.
//
// usage: watch LOG PROGRAM ARGUMENT...
//   LOG  gets a line "program PATH" for each exec after the first, or "unwatched" where the container
//        engine forbids ptrace
//
// qemu emulates up to exec: what is started then runs on the machine's own CPU, and must not count as
// emulated. Only events stop the program: exec, new processes and threads, signals. The exit status is
// the program's; its death by a signal is ours.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *path, const char *text) {
  const int log = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
  if (log < 0 || write(log, text, strlen(text)) < 0) perror(path);
  if (log >= 0) close(log);
}

static void tell_program(const char *log, pid_t pid) {
  char link[64], program[4000], line[4096];
  snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
  const ssize_t length = readlink(link, program, sizeof program - 1);
  program[length < 0 ? 0 : length] = 0;
  snprintf(line, sizeof line, "program %s\n", program);
  tell(log, line);
}

static void end_as(int status) {
  if (!WIFSIGNALED(status)) exit(WEXITSTATUS(status));
  const struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(WTERMSIG(status), SIG_DFL);
  raise(WTERMSIG(status));
  exit(128 + WTERMSIG(status));
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fputs("usage: watch LOG PROGRAM ARGUMENT...\n", stderr);
    return 64;
  }
  int gate[2];
  if (pipe2(gate, O_CLOEXEC)) return perror("pipe"), 71;
  const pid_t child = fork();
  if (child < 0) return perror("fork"), 71;
  if (child == 0) {
    char byte;
    close(gate[1]);
    if (read(gate[0], &byte, 1) < 0) perror("read");  // returns when the other end is closed
    execv(argv[2], argv + 2);
    perror(argv[2]);
    _exit(127);
  }
  const long wanted = PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
  const int watched = ptrace(PTRACE_SEIZE, child, 0, wanted) == 0;
  if (!watched) tell(argv[1], "unwatched\n");
  close(gate[0]);
  close(gate[1]);
  int status, started = 0;
  for (;;) {
    const pid_t pid = waitpid(-1, &status, __WALL);
    if (pid < 0) return perror("waitpid"), 71;
    if (!WIFSTOPPED(status)) {
      if (pid == child) end_as(status);
      continue;
    }
    const int event = status >> 16, sign = WSTOPSIG(status);
    if (event == PTRACE_EVENT_EXEC && started++) tell_program(argv[1], pid);
    if (event == PTRACE_EVENT_STOP && sign != SIGTRAP) {
      ptrace(PTRACE_LISTEN, pid, 0, 0);  // stopped as a whole, by SIGSTOP and the like
    } else {
      ptrace(PTRACE_CONT, pid, 0, event ? 0 : (long)sign);
    }
  }
}
