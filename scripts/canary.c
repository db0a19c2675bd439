// Whether an emulated CPU is what it says: compiled static and without libc, run by scripts/emulate.
//
// usage: canary          one AVX instruction, then "lived": a CPU without AVX ends it by SIGILL
//        canary --level  what CPUID says, in two words: the psABI level, and avx or no-avx
//
// It is compiled for the baseline, with general registers only, so that the one instruction stands alone.
#include <cpuid.h>

static long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

static void say(const char *text) {
  long length = 0;
  while (text[length]) ++length;
  call(1, 1, (long)text, length);
}

static int all(unsigned have, unsigned wanted) { return (have & wanted) == wanted; }

// Bits as the psABI's table 3.1 has them. Levels 3 and 4 count only if the system saves the registers.
static void level(void) {
  unsigned a, b, c, d, c1 = 0, b7 = 0, c81 = 0, xcr0 = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) c1 = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) b7 = b;
  if (__get_cpuid(0x80000001, &a, &b, &c, &d)) c81 = c;
  if (c1 & bit_OSXSAVE) __asm__("xgetbv" : "=a"(xcr0) : "c"(0) : "edx");
  const int avx = all(c1, bit_AVX) && all(xcr0, 0x6);
  const int v2 = all(c1, bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B) &&
                 all(c81, bit_LAHF_LM);
  const int v3 = v2 && avx && all(c1, bit_FMA | bit_MOVBE | bit_F16C) && all(b7, bit_AVX2 | bit_BMI | bit_BMI2) &&
                 all(c81, bit_ABM);
  const int v4 = v3 && all(xcr0, 0xe0) &&
                 all(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL);
  say(v4 ? "x86-64-v4" : v3 ? "x86-64-v3" : v2 ? "x86-64-v2" : "x86-64");
  say(avx ? " avx\n" : " no-avx\n");
}

__attribute__((used)) static void start(long argc) {
  if (argc > 1) {
    level();
  } else {
    __asm__ volatile("vxorps %ymm0, %ymm0, %ymm0");
    say("lived\n");
  }
  call(231, 0, 0, 0);  // exit_group
}

__asm__(".globl _start\n_start:\n  mov (%rsp), %rdi\n  and $-16, %rsp\n  call start\n");
