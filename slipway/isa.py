"""What an ELF file asks of a CPU: every instruction decoded, and held to the levels of the psABI.

Everything here takes bytes and returns values. Code is what a section says that the CPU may
execute. Hand-written assembly keeps tables between its functions, and a table decodes to nonsense;
so what a symbol or an unwind entry calls a function counts whole, and what nothing vouches for
counts only where all of it decodes. Where nothing vouches for anything, all of it counts.
"""

from __future__ import annotations

import functools
import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

from slipway.records import Record
from slipway.variants import LEVEL_FLAGS

LEVELS = tuple(LEVEL_FLAGS)
MAX_PLACES = 500  # functions kept for each extension, the first ones; all are counted

# The decoder's names of what LEVEL_FLAGS spells as Linux does; of all others in capitals.
_SPELLED = {"abm": "LZCNT", "cx16": "CMPXCHG16B", "lahf_lm": "LAHF", "pni": "SSE3"}
LEVEL_OF: dict[str, str] = {
    _SPELLED.get(flag, flag.upper()): level
    for level, flags in LEVEL_FLAGS.items()
    for flag in flags
}
"""Extension to the level that it belongs to; those of no level, such as AES, are not in it."""

# What every x86-64 CPU has, in the decoder's names, beside the flags of the first level.
_ALWAYS = re.compile(
    r"INTEL\w+|X64|FPU\w*|CMOV|CPUID|CLFSH|TSC|MSR|SEP|SMM|RDPMC|SYSCALL|PAUSE|MULTIBYTENOP"
)
# Encodings that a CPU which does not know them passes over, and what only asks the CPU: counted,
# and held against nobody. RDSSP, which GCC's unwinder runs, is such a no-op, and INCSSP is run only
# if it was none; of PREFETCHW Intel's 64-bit CPUs before Broadwell make a no-op.
_PASSED_OVER = ("CET_IBT", "CET_SS", "CLDEMOTE", "MPX", "PREFETCHITI", "PREFETCHW", "PREFETCHWT1")
# TZCNT runs as BSF where it is unknown, with the same result for all but zero: GCC writes it for
# __builtin_ctz at every level. LZCNT runs as BSR there, with another result, and counts.
_BY_CODE = {"TZCNT": "TZCNT", "XGETBV": "XGETBV", "LAHF": "LAHF", "SAHF": "LAHF"}
HARMLESS = frozenset([*_PASSED_OVER, "TZCNT", "XGETBV"])
_VECTOR = re.compile(r"SSE\d?|AVX.*|FMA4?|F16C")

_MACHINES = {3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 183: "aarch64", 243: "riscv"}
_X86_64 = 62
_RELOCATABLE = 1
_EXECUTABLE = 4  # SHF_EXECINSTR
_NOBITS, _SYMTAB, _DYNSYM, _NOTE = 8, 2, 11, 7
_FUNCTIONS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_LABELS = (0, *_FUNCTIONS)

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_MEMBER = 60  # bytes of the header of an archive's member


class UnreadableError(ValueError):
    """An ELF file whose code cannot be told: of another CPU, or cut off."""


class Place(Record, frozen=True):
    """Where an extension is used first in a function."""

    function: str
    """The symbol, or the nearest one before; a section where there is none."""
    offset: int
    """From that symbol."""
    address: int
    text: str
    """The instruction."""
    count: int
    """How many in the function need the extension."""

    def __str__(self) -> str:
        """``axpy+0x2c: vmovups ymm0,[rdi]``."""
        return f"{self.function}+{self.offset:#x}: {self.text}"


class Use(Record, frozen=True):
    """One extension in one file."""

    count: int
    functions: int
    places: tuple[Place, ...]
    """In the order of addresses, ``MAX_PLACES`` at most."""


class Verdict(Record, frozen=True):
    """All that was found in a file."""

    level: str
    """The lowest psABI level that has every extension of a level that is used."""
    extensions: dict[str, Use]
    harmless: dict[str, int]
    """What every CPU runs, or passes over: TZCNT, CET_IBT, ..."""
    code: int
    """Bytes that were decoded."""
    data: int
    """Bytes between functions that are no code."""
    undecoded: int
    """Bytes within functions that are no instruction."""
    named_by: str
    """``symbols``, ``dynamic symbols`` or ``sections``: how well functions could be named."""

    @property
    def outside(self) -> list[str]:
        """Extensions that are in no level."""
        return [name for name in self.extensions if name not in LEVEL_OF]

    def beyond(self, isa: str) -> list[str]:
        """Extensions that a CPU of the level ``isa`` need not have."""
        allowed = LEVELS[: LEVELS.index(isa) + 1]
        return [name for name in self.extensions if LEVEL_OF.get(name) not in allowed]

    @property
    def vectors(self) -> tuple[int, int]:
        """Instructions on vector registers as SSE has them, and as AVX and its heirs do."""
        counts = {n: use.count for n, use in self.extensions.items() if _VECTOR.fullmatch(n)}
        old = sum(count for name, count in counts.items() if name.startswith("SSE"))
        return old, sum(counts.values()) - old


def examine(data: bytes, symbols: bytes = b"") -> Verdict:
    """Decode every instruction of an ELF file.

    :param symbols: the ELF file that holds its symbols, where they were split off.
    :raises UnreadableError: it is not for x86-64, or not whole.
    """
    elf = parse(data)
    named_by, known = _symbols(elf, parse(symbols, whole=False) if symbols else None)
    extents = sorted([*known, *_unwound(elf)], key=lambda e: (e.start, not e.is_code, -e.end))
    starts = [e.start for e in extents]
    uses: dict[str, dict[tuple[str, int], list[int]]] = {}
    code = lost = undecoded = 0
    for section in elf.code:
        here = extents[bisect_left(starts, section.start) : bisect_left(starts, section.end)]
        vouched = any(e.is_code for e in here)
        for region in regions(section, here):
            block = data[section.at(region.start) : section.at(region.end)]
            found, bad = sweep(block, region.start)
            if bad and vouched and not region.is_code:
                lost += len(block)
                continue
            code += len(block)
            undecoded += bad
            key = (region.name or section.name, region.base)
            for needs, (count, address) in found.items():
                for extension in needs:
                    seen = uses.setdefault(extension, {}).setdefault(key, [0, address])
                    seen[0] += count
                    seen[1] = min(seen[1], address)
    return Verdict(
        level=max((LEVEL_OF.get(e, LEVELS[0]) for e in uses), key=LEVELS.index, default=LEVELS[0]),
        extensions={
            e: _use(elf, uses[e]) for e in sorted(uses, key=_by_level) if e not in HARMLESS
        },
        harmless={e: sum(n for n, _ in uses[e].values()) for e in sorted(HARMLESS & uses.keys())},
        code=code,
        data=lost,
        undecoded=undecoded,
        named_by=named_by,
    )


def _by_level(extension: str) -> tuple[int, str]:
    level = LEVEL_OF.get(extension)
    return (LEVELS.index(level) if level else len(LEVELS)), extension


def _use(elf: Elf, functions: dict[tuple[str, int], list[int]]) -> Use:
    rows = sorted(functions.items(), key=lambda row: row[1][1])
    places = [
        Place(name, address - base, address, _text(elf, address), count)
        for (name, base), (count, address) in rows[:MAX_PLACES]
    ]
    return Use(sum(count for count, _ in functions.values()), len(rows), tuple(places))


def _text(elf: Elf, address: int) -> str:
    from iced_x86 import Decoder, Formatter, FormatterSyntax

    section = next(s for s in elf.code if s.start <= address < s.end)
    offset = section.at(address)
    instruction = Decoder(64, elf.data[offset : offset + 15], ip=address).decode()
    return Formatter(FormatterSyntax.INTEL).format(instruction)


# -- instructions


@functools.cache
def _table() -> tuple[tuple[str, ...], ...]:
    """What each of the decoder's codes needs, beyond what goes without saying; by number."""
    from iced_x86 import Code, CpuidFeature, Instruction, Mnemonic, OpCodeInfo, OpCodeOperandKind

    features = _numbers(CpuidFeature)
    mnemonics = _numbers(Mnemonic)
    vectors = {n for n, name in _numbers(OpCodeOperandKind).items() if "XMM" in name}
    codes = _numbers(Code)
    table: list[tuple[str, ...]] = [()] * (max(codes) + 1)
    instruction = Instruction()
    for code in codes:
        instruction.code = code
        named = _BY_CODE.get(mnemonics[instruction.mnemonic])
        names = [features[f] for f in instruction.cpuid_features()]
        if not vectors.intersection(OpCodeInfo(code).op_kinds()):
            # Fences, prefetches and the like are of SSE and use none of its registers.
            names = [n for n in names if LEVEL_OF.get(n) != LEVELS[0]]
        names = [n for n in names if not _ALWAYS.fullmatch(n) and n not in ("CX8", "FXSR", "MMX")]
        table[code] = (named,) if named else tuple(names)
    table[Code.INVALID] = _INVALID
    return tuple(table)


_INVALID = ("(bad)",)


def _numbers(enumeration: object) -> dict[Any, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def sweep(block: bytes, address: int) -> tuple[dict[tuple[str, ...], list[int]], int]:
    """Decode a block from its first byte on; after what is no instruction, from the next byte on.

    :returns: for each set of extensions that instructions need together how many do and the address
        of the first; and the number of bytes that are no instruction.
    """
    from iced_x86 import Decoder

    found: dict[tuple[str, ...], list[int]] = {}
    table, bad = _table(), 0
    decoder = Decoder(64, block, ip=address)
    for instruction in decoder:  # 0.4 us each: whatever is done here for all of them shows
        needs = table[instruction.code]
        if needs:
            if needs is _INVALID:
                bad += 1
                decoder.position = instruction.ip + 1 - address
                decoder.ip = instruction.ip + 1
                continue
            seen = found.get(needs)
            if seen:
                seen[0] += 1
            else:
                found[needs] = [1, instruction.ip]
    return found, bad


# -- what is a function


class Extent(Record, frozen=True):
    """Addresses that belong together, and what says so."""

    start: int
    end: int
    name: str
    """Empty: unwind entries, and gaps, have none."""
    is_code: bool
    """Vouched for by a function's symbol or an unwind entry; a bare label may name a table."""
    base: int = 0
    """Of a region: where the symbol stands that it is told by."""


def regions(section: Section, extents: list[Extent]) -> Iterator[Extent]:
    """Cut a section where functions begin and end; none of its bytes is left out.

    :param extents: what is known of it, by address; of one address, code and the longest first.
    """
    position = section.start
    name, base = "", section.start
    starts = [*(e.start for e in extents), section.end][1:]
    for extent, following in zip(extents, starts, strict=True):
        if extent.start > position:
            yield Extent(position, extent.start, name, False, base)
        if extent.name:
            name, base = extent.name, extent.start
        start, end = max(position, extent.start), min(extent.end, section.end)
        if end == extent.start:  # a symbol without a size reaches to the next one
            end = following
        if end > start:
            yield Extent(start, end, name, extent.is_code, base)
        position = max(position, end)
    if position < section.end:
        yield Extent(position, section.end, name, False, base)


def _symbols(elf: Elf, apart: Elf | None) -> tuple[str, list[Extent]]:
    """The best symbols there are: the file's own, those split off it, the dynamic linker's."""
    for said, file, kind in (
        ("symbols", elf, _SYMTAB),
        ("symbols", apart, _SYMTAB),
        ("dynamic symbols", elf, _DYNSYM),
    ):
        found = list(_table_of(file, kind, elf)) if file else []
        if found:
            return said, found
    return "sections", []


def _table_of(file: Elf, kind: int, elf: Elf) -> Iterator[Extent]:
    """The functions and labels in the code of ``elf`` that a symbol table of ``file`` names."""
    table = next((s for s in file.sections if s.kind == kind), None)
    if table is None or table.link >= len(file.sections):
        return
    block, strings = file.content(table), file.content(file.sections[table.link])
    whole = len(block) // _SYMBOL.size * _SYMBOL.size
    code = elf.code
    places = [s.start for s in code]
    relative = {i: s.start for i, s in enumerate(file.sections)} if file.is_relocatable else {}
    for name, info, _, index, value, size in _SYMBOL.iter_unpack(block[:whole]):
        if info & 15 not in _LABELS or not index or not name:
            continue
        start = value + relative.get(index, 0)
        place = bisect_right(places, start) - 1
        if place >= 0 and start < code[place].end:
            text = strings[name : strings.find(b"\0", name)].decode(errors="replace")
            is_function = info & 15 in _FUNCTIONS
            yield Extent(start, start + size, text, is_function)


def _unwound(elf: Elf) -> Iterator[Extent]:
    """The functions that .eh_frame tells of, by the sorted table in .eh_frame_hdr.

    A stripped file has these too. Only the encoding that all linkers write is read, and an entry
    counts only if both say the same address.
    """
    named = {s.name: s for s in elf.sections}
    index, frames = named.get(".eh_frame_hdr"), named.get(".eh_frame")
    if not index or not frames or elf.is_relocatable:
        return
    table, entries = elf.content(index), elf.content(frames)
    if len(table) < 12 or (table[0], table[1], table[2], table[3]) != (1, 0x1B, 0x03, 0x3B):
        return
    count = min(int.from_bytes(table[8:12], "little"), (len(table) - 12) // 8)
    for start, entry in struct.iter_unpack("<ii", table[12 : 12 + 8 * count]):
        place = index.start + entry - frames.start + 8  # past length and CIE
        if not 0 <= place <= len(entries) - 8:
            continue
        relative, size = struct.unpack_from("<iI", entries, place)
        if frames.start + place + relative == index.start + start:
            yield Extent(index.start + start, index.start + start + size, "", True)


# -- the file


class Section(Record, frozen=True):
    """A section, or a segment where there are no sections."""

    name: str
    kind: int
    start: int
    """Address; in an object file, which has none yet, the offset in the file."""
    offset: int
    size: int
    link: int
    is_code: bool

    @property
    def end(self) -> int:
        """The address after it."""
        return self.start + self.size

    def at(self, address: int) -> int:
        """The offset in the file of an address."""
        return self.offset + address - self.start


class Elf(Record, frozen=True):
    """An ELF file, as far as it matters here."""

    data: bytes
    sections: tuple[Section, ...]
    is_relocatable: bool

    @property
    def code(self) -> list[Section]:
        """What the CPU may execute, by address."""
        return sorted((s for s in self.sections if s.is_code), key=lambda s: s.start)

    def content(self, section: Section) -> bytes:
        """The bytes of a section; none where they were split off."""
        if section.kind == _NOBITS:
            return b""
        return self.data[section.offset : section.offset + section.size]

    @property
    def build_id(self) -> str:
        """What a file and its split-off symbols have in common; hex digits, or empty."""
        for section in self.sections:
            note = self.content(section) if section.kind == _NOTE else b""
            if note[8:16] == b"\x03\0\0\0GNU\0":
                size = int.from_bytes(note[4:8], "little")
                return note[16 : 16 + size].hex()
        return ""


def is_elf(start: bytes) -> bool:
    """Whether a file that starts so is an ELF file, whatever else is wrong with it."""
    return start.startswith(b"\x7fELF")


def parse(data: bytes, *, whole: bool = True) -> Elf:
    """The sections of an ELF file.

    :param whole: refuse one whose code is not all there.
    :raises UnreadableError: it is not for x86-64, or not whole.
    """
    if len(data) < _HEADER.size:
        raise UnreadableError(f"is cut off: of its first {_HEADER.size} bytes it has {len(data)}")
    identity, kind, machine, _, _, segments, table, _, _, _, count, _, total, names = (
        _HEADER.unpack_from(data)
    )
    machine = int.from_bytes(data[18:20], "little" if identity[5] == 1 else "big")
    if (machine, identity[4], identity[5]) != (_X86_64, 2, 1):
        name = _MACHINES.get(machine, f"machine {machine}")
        raise UnreadableError(f"is for {'x32' if machine == _X86_64 else name}, not for x86-64")
    if table and total == 0 and table + _SECTION.size <= len(data):  # more than fit its field
        total = _SECTION.unpack_from(data, table)[5]
        names = _SECTION.unpack_from(data, table)[6]
    _within("the table of its sections", table + total * _SECTION.size, data)
    _within("the table of its segments", segments + count * _SEGMENT.size, data)
    rows = [_SECTION.unpack_from(data, table + i * _SECTION.size) for i in range(total)]
    relocatable = kind == _RELOCATABLE
    if rows and names < len(rows):
        strings = data[rows[names][4] : rows[names][4] + rows[names][5]]
        sections = [_section(row, strings, relocatable) for row in rows]
    else:
        sections = list(_segments(data, segments, count))
    for section in sections:
        if whole and section.is_code:
            _within(section.name or "its code", section.offset + section.size, data)
    return Elf(data, tuple(sections), relocatable)


def _section(row: tuple[int, ...], strings: bytes, relocatable: bool) -> Section:
    name, kind, flags, address, offset, size, link = row[:7]
    text = strings[name : strings.find(b"\0", name)].decode(errors="replace")
    is_code = bool(flags & _EXECUTABLE) and kind != _NOBITS and size > 0
    return Section(text, kind, offset if relocatable else address, offset, size, link, is_code)


def _segments(data: bytes, table: int, count: int) -> Iterator[Section]:
    """What is loaded to be executed, of a file that has been stripped of its sections."""
    for number in range(count):
        kind, flags, offset, address, _, size, _, _ = _SEGMENT.unpack_from(
            data, table + number * _SEGMENT.size
        )
        if kind == 1 and flags & 1 and size:
            yield Section(f"segment {number}", 1, address, offset, size, 0, is_code=True)


def _within(what: str, end: int, data: bytes) -> None:
    if end > len(data):
        raise UnreadableError(f"is cut off: {what} ends at byte {end}, the file has {len(data)}")


# -- archives of object files, and packages, which have the same format


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an ``ar`` archive.

    :raises UnreadableError: it is cut off.
    """
    position, names = 8, b""
    while position + _MEMBER <= len(data):
        header = data[position : position + _MEMBER]
        digits = header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit():
            raise UnreadableError(f"is no archive: no member begins at byte {position}")
        size, start = int(digits), position + _MEMBER
        _within("a member", start + size, data)
        content = data[start : start + size]
        name = header[:16].decode(errors="replace").rstrip()
        if name == "//":
            names = content
        elif name not in ("/", "/SYM64/"):
            if name[:1] == "/" and name[1:].isdigit():  # kept in the table of long names
                name = names[int(name[1:]) :].split(b"\n")[0].decode(errors="replace")
            yield name.rstrip("/"), content
        position = start + size + size % 2
