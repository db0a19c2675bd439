"""The smallest ELF files that have what the audit looks at, byte by byte; and packages of them."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

RET = bytes.fromhex("c3")
ADDPS_XMM = bytes.fromhex("0f58c1")
VADDPS_YMM = bytes.fromhex("c5fc58c1")
POPCNT = bytes.fromhex("f30fb8c7")
TEXT = 0x1000

Symbol = tuple[str, int, int]
FUNCTION, LABEL = 0x12, 0x10  # global, and of which type


def elf(
    code: bytes,
    functions: Sequence[Symbol] = (),
    *,
    labels: Sequence[Symbol] = (),
    dynamic: bool = False,
    machine: int = 62,
    relocatable: bool = False,
    unwind: Sequence[tuple[int, int]] = (),
    build_id: bytes = b"",
    sections: bool = True,
    code_is_here: bool = True,
) -> bytes:
    """An x86-64 ELF file with one section of code.

    :param functions: name, offset in the code and size of each.
    :param labels: the same of symbols that do not say that they are functions.
    :param dynamic: the symbols are those for the dynamic linker, as in a stripped library.
    :param unwind: offset and size of functions that .eh_frame tells of.
    :param sections: without them only a segment says what is code.
    :param code_is_here: else it was split off, as from a file of debug symbols.
    """
    start = 0 if relocatable else TEXT
    strings, symbols = b"\0", b"\0" * 24
    for kind, rows in ((FUNCTION, functions), (LABEL, labels)):
        for name, offset, size in rows:
            symbols += struct.pack("<IBBHQQ", len(strings), kind, 0, 1, start + offset, size)
            strings += name.encode() + b"\0"
    header, frames = _unwind(unwind)
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU") + build_id
    parts: list[tuple[str, int, int, int, bytes, int]] = [
        # name, type, flags, address, content, link
        ("", 0, 0, 0, b"", 0),
        (".text", 1 if code_is_here else 8, 6, start, code, 0),
        (".symtab", 11 if dynamic else 2, 0, 0, symbols, 3),
        (".strtab", 3, 0, 0, strings, 0),
        (".eh_frame_hdr", 1, 2, 0x8000, header, 0),
        (".eh_frame", 1, 2, 0x9000, frames, 0),
        (".note.gnu.build-id", 7, 2, 0xA000, note if build_id else b"", 0),
    ]
    names = b"".join(part[0].encode() + b"\0" for part in parts) + b".shstrtab\0"
    parts.append((".shstrtab", 3, 0, 0, names, 0))
    body, rows_of, name_at = b"", b"", 0
    first = 64 + 56
    for name, kind, flags, address, content, link in parts:
        offset = first + len(body)
        rows_of += struct.pack(
            "<IIQQQQIIQQ", name_at, kind, flags, address, offset, len(content), link, 0, 1, 24
        )
        name_at += len(name) + 1
        body += content if kind != 8 else b""
    segment = struct.pack("<IIQQQQQQ", 1, 5, first, start, start, len(code), len(code), 16)
    table = first + len(body) if sections else 0
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1",
        *(1 if relocatable else 3, machine, 1, 0, 64, table),
        *(0, 64, 56, 1, 64, len(parts) if sections else 0, len(parts) - 1 if sections else 0),
    )
    return head + segment + body + (rows_of if sections else b"")


def _unwind(functions: Sequence[tuple[int, int]]) -> tuple[bytes, bytes]:
    """.eh_frame_hdr and .eh_frame, at 0x8000 and 0x9000, as GNU ld writes them."""
    header = struct.pack("<BBBBiI", 1, 0x1B, 0x03, 0x3B, 0x1000 - 4, len(functions))
    frames = b""
    for offset, size in functions:
        here = 0x9000 + len(frames)
        header += struct.pack("<ii", TEXT + offset - 0x8000, here - 0x8000)
        frames += struct.pack("<IIiI", 12, 0, TEXT + offset - (here + 8), size)
    return header, frames


def archive(members: Mapping[str, bytes]) -> bytes:
    """An ``ar`` archive."""
    made = b"!<arch>\n"
    for name, content in members.items():
        head = f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        made += head.encode() + content + b"\n" * (len(content) % 2)
    return made


def tar(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar archive; compression is ``gz``, ``xz`` or none."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    whole = stream.getvalue()
    if compression == "gz":
        return gzip.compress(whole)
    return lzma.compress(whole) if compression else whole


def deb(files: Mapping[str, bytes], compression: str = "xz") -> bytes:
    """A Debian package."""
    end = f".{compression}" if compression else ""
    return archive(
        {
            "debian-binary": b"2.0\n",
            f"control.tar{end}": tar({}, compression),
            f"data.tar{end}": tar({f"./{name}": c for name, c in files.items()}, compression),
        }
    )


def wheel(path: Path, files: Mapping[str, bytes]) -> Path:
    """A wheel, as far as its contents go."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path
