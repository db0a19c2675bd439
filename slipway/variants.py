"""The variants: one table from which everything that depends on the variant derives.

The rows are the defaults of the setting ``variants``; one more variant is one more row in
invoke.yaml. The ISA levels are those of the x86-64 psABI, which GCC 12 and later take as
``-march``: x86-64-v2 is Nehalem's (SSE4.2, no AVX), x86-64-v3 Haswell's (AVX2, FMA).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from slipway.errors import BAD_CONFIG, USAGE, SlipwayError, nearest

CPUINFO = Path("/proc/cpuinfo")

# What /proc/cpuinfo lists at each level, beyond the level before it (psABI, table 3.1; Linux spells
# SSE3 as pni and LZCNT as abm).
LEVEL_FLAGS: dict[str, tuple[str, ...]] = {
    "x86-64": ("cx8", "fpu", "fxsr", "mmx", "sse", "sse2"),
    "x86-64-v2": ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"),
    "x86-64-v3": ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
# The same for people, who know their CPU by a few of them.
LEVEL_WORDS: dict[str, str] = {
    "x86-64": "SSE2",
    "x86-64-v2": "SSE4.2",
    "x86-64-v3": "AVX2, FMA",
    "x86-64-v4": "AVX-512",
}


# sm_80 is the A100's (Ampere), sm_90 the H100's (Hopper); later GPUs run the newest's PTX.
CUDA = ("sm_80", "sm_90")

# What the compiler of CUDA 13.0 makes code for, as `nvcc --help` lists it under --gpu-architecture;
# those with a letter are for one GPU alone (a), or for its family (f).
CUDA_KNOWN = tuple(
    f"sm_{number}{letter}"
    for numbers, letters in (
        ((75, 80, 86, 87, 88, 89), ("",)),
        ((90,), ("", "a")),
        ((100, 103, 110, 120, 121), ("", "a", "f")),
    )
    for number in numbers
    for letter in letters
)


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row: an instruction set, and what carries its name."""

    isa: str
    """psABI level handed to the compiler as ``-march``."""
    suffix: str = ""
    """Appended to package names and image tags: ``oar-noavx``, ``1.2.0-noavx``."""
    cuda: tuple[str, ...] = ()
    """GPUs that get machine code, such as sm_80, oldest first; the newest gets PTX too."""
    about: str = ""
    """What it is for, in a few words."""

    @property
    def compiler_flags(self) -> str:
        """Flags for C and C++ that fix the instruction set, whatever the build host's CPU is."""
        return f"-march={self.isa} -mtune=generic"

    @property
    def cuda_architectures(self) -> str:
        """The GPUs as CMake's CUDA_ARCHITECTURES has them: ``80-real;90-real;90-virtual``."""
        numbers = [arch.removeprefix("sm_") for arch in self.cuda]
        return ";".join([*(f"{n}-real" for n in numbers), *(f"{n}-virtual" for n in numbers[-1:])])

    @property
    def gpus(self) -> str:
        """What descriptions say of them: ``and for GPUs (sm_80, and later ones)``; or nothing."""
        return f"and for GPUs ({', '.join(self.cuda)}, and later ones)" if self.cuda else ""

    def runs_on(self, capability: int) -> bool:
        """Whether a GPU of this compute capability, times ten, runs the code of one of ``cuda``.

        Machine code runs where the major number is the same and the minor not less; the newest's
        PTX on all later GPUs; with ``a`` both run on that GPU alone, with ``f`` on its family.
        """
        for arch in self.cuda:
            number, letter = int(re.sub(r"\D", "", arch)), arch[-1]
            family = capability // 10 == number // 10 and capability >= number
            if capability == number or (family and letter != "a"):
                return True
        newest = self.cuda[-1] if self.cuda else ""
        return newest[-1:].isdigit() and capability >= int(newest.removeprefix("sm_"))


TABLE: dict[str, Variant] = {
    "cpu": Variant(isa="x86-64-v3", about="AVX2 and FMA: any CPU since about 2013"),
    "noavx": Variant(isa="x86-64-v2", suffix="-noavx", about="SSE4.2: older or emulated CPUs"),
    "gpu": Variant(
        isa="x86-64-v3", suffix="-gpu", cuda=CUDA, about="as cpu, and NVIDIA GPUs since the A100"
    ),
    "gpu-noavx": Variant(
        isa="x86-64-v2", suffix="-gpu-noavx", cuda=CUDA, about="as noavx, and the same GPUs"
    ),
}


def levels_of_host(cpuinfo: str) -> list[str]:
    """psABI levels that the CPU described by the text of /proc/cpuinfo has, lowest first."""
    line = next((x for x in cpuinfo.splitlines() if x.startswith("flags")), "")
    flags = set(line.partition(":")[2].split())
    levels = []
    for level, wanted in LEVEL_FLAGS.items():
        if not flags.issuperset(wanted):
            break
        levels.append(level)
    return levels


def best_for_host(
    table: Mapping[str, Variant], names: Sequence[str], *, has_gpu: bool = False
) -> tuple[str, str]:
    """The variant of ``names`` with the highest ISA that this host runs, and why that one.

    :param has_gpu: whether a GPU is known to be there: then a row with CUDA comes first, else none
        is chosen.
    """
    fitting = [n for n in names if has_gpu or not table[n].cuda]
    if not fitting:
        raise SlipwayError(
            f"no variant is for a machine without a GPU: {', '.join(names)}",
            cause="those with CUDA are not chosen unasked",
            fix=[f"the same command with --variant {names[0]}"],
            code=USAGE,
        )
    names = sorted(fitting, key=lambda n: not table[n].cuda)
    if not CPUINFO.exists():
        return names[0], "the host's CPU cannot be asked here"
    levels = levels_of_host(CPUINFO.read_text())
    order = list(LEVEL_FLAGS)
    able = [n for n in names if table[n].isa in levels]
    if not able:
        wanted = ", ".join(f"{n} ({table[n].isa})" for n in names)
        raise SlipwayError(
            f"this host's CPU ({levels[-1] if levels else 'not x86-64'}) runs none of: {wanted}",
            fix=["invoke prod --variant noavx"],
        )
    able = [n for n in able if table[n].cuda] or able
    best = max(able, key=lambda n: order.index(table[n].isa))
    why = f"{table[best].isa} is the highest of {', '.join(names)} that this host's CPU has"
    return best, f"this host has a GPU; {why}" if table[best].cuda else why


def choose(
    table: Mapping[str, Variant],
    wanted: str,
    default: Sequence[str],
    refused: Mapping[str, str] | None = None,
) -> list[str]:
    """Names that ``--variant`` means: one, several separated by commas, or ``all``.

    :param table: the rows that the project has.
    :param wanted: what was typed; empty for ``default``.
    :param refused: rows that it cannot have, and why.
    """
    if wanted == "all":
        return list(table)
    names = [n.strip() for n in wanted.split(",") if n.strip()] or list(default)
    for name in names:
        if name not in table:
            why = (refused or {}).get(name)
            raise SlipwayError(
                f"the project has no variant '{name}'" if why else f"no variant '{name}'",
                cause=why or nearest(name, [*table, "all"]),
                fix=["invoke build --variant all" if why else "invoke build --help"],
                code=USAGE,
            )
    return list(dict.fromkeys(names))


def check(table: Mapping[str, Variant]) -> None:
    """Refuse a table in which two rows would make files of the same name, and unknown GPUs."""
    seen: dict[str, str] = {}
    for name, row in table.items():
        for arch in row.cuda:
            if arch not in CUDA_KNOWN:
                raise SlipwayError(
                    f"variants.{name}.cuda: the compiler of CUDA 13.0 knows no '{arch}'",
                    cause=nearest(arch, CUDA_KNOWN),
                    fix=[f"mend variants.{name}.cuda in invoke.yaml, or the file given with -f"],
                    code=BAD_CONFIG,
                )
        if row.suffix in seen:
            raise SlipwayError(
                f"variants '{seen[row.suffix]}' and '{name}' have the same suffix '{row.suffix}'",
                cause="their packages and images would overwrite each other",
                fix=[f"give variants.{name}.suffix in invoke.yaml a value of its own"],
                code=BAD_CONFIG,
            )
        seen[row.suffix] = name
