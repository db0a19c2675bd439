/* First program of every production image: ask the CPU what it has, then become the command.
 *
 * usage: preflight PROGRAM ARGUMENT...   on a CPU that lacks what the image needs: one sentence, status 78
 *        preflight --level               print the highest level of the x86-64 psABI that this CPU has
 *
 * It runs on every x86-64 CPU, so nothing is linked that was compiled for more, or chooses by the CPU as
 * libc does: gcc -static -nostdlib. PROGRAM is an absolute path; the environment goes on as it is.
 *
 * levels.h is made by slipway/preflight.py: LEVEL("name", "sentence") for each level, lowest first; the
 * sentence is empty where the level is enough. What a level holds is the compiler's knowledge: libgcc
 * asks CPUID for each extension, and by XGETBV whether the system saves AVX's registers, without which
 * CPUID's word on AVX counts for nothing. */

enum { STDOUT = 1, STDERR = 2, USAGE = 64, CONFIG = 78, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };
enum { SYS_WRITE = 1, SYS_EXECVE = 59, SYS_EXIT_GROUP = 231, ENOENT = 2 };

static const struct {
  const char *name, *refusal;
} levels[] = {
#define LEVEL(name, refusal) {name, refusal},
#include "levels.h"
#undef LEVEL
};

static long ask_kernel(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c)
                   : "rcx", "r11", "memory");
  return result;
}

__attribute__((noreturn)) static void leave(int status) {
  for (;;) ask_kernel(SYS_EXIT_GROUP, status, 0, 0);
}

static void say(int where, const char *text) {
  long length = 0;
  while (text[length]) length++;
  while (length > 0) {
    long written = ask_kernel(SYS_WRITE, where, (long)text, length);
    if (written <= 0) return;
    text += written;
    length -= written;
  }
}

static int is_level(const char *argument) {
  const char *wanted = "--level";
  while (*wanted && *wanted == *argument) wanted++, argument++;
  return *wanted == *argument;
}

/* Each level holds those before it, so their number tells the highest. */
static int highest(void) {
  int count = 0;
  __builtin_cpu_init();
#define LEVEL(name, refusal) count += !!__builtin_cpu_supports(name);
#include "levels.h"
#undef LEVEL
  return count ? count - 1 : 0;
}

/* stack: what the kernel leaves there: argc, argv, a null, the environment, a null */
__attribute__((noreturn, used)) static void start(long *stack) {
  char **argv = (char **)(stack + 1), **environment = argv + *stack + 1;
  if (*stack < 2) {
    say(STDERR, "usage: preflight PROGRAM ARGUMENT... | preflight --level\n");
    leave(USAGE);
  }
  int level = highest();
  if (is_level(argv[1])) {
    say(STDOUT, levels[level].name);
    say(STDOUT, "\n");
    leave(0);
  }
  if (*levels[level].refusal) {
    say(STDERR, levels[level].refusal);
    say(STDERR, "\n");
    leave(CONFIG);
  }
  long error = ask_kernel(SYS_EXECVE, (long)argv[1], (long)(argv + 1), (long)environment);
  say(STDERR, "preflight: cannot start ");
  say(STDERR, argv[1]);
  say(STDERR, error == -ENOENT ? ": no such file, or no interpreter of it\n" : "\n");
  leave(error == -ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

__asm__(".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "  xor %ebp, %ebp\n"
        "  mov %rsp, %rdi\n"
        "  and $-16, %rsp\n"
        "  call start\n"
        ".size _start, . - _start\n");
