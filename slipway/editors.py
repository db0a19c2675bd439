"""What an editor on the host needs to read code as the image compiles it: ``build --ide``.

``out/ide/PROJECT-VARIANT/compile_commands.json`` is the build's own, with the image's headers read
from ``out/ide/headers-KEY``, a copy that is made once for each image. ``scripts/ide`` copies.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from slipway import console, outputs, receipts
from slipway.builds import Site
from slipway.engine import Job, Mount
from slipway.errors import BAD_DATA, SlipwayError

DATABASE = "compile_commands.json"
TARGET = "x86_64-linux-gnu"  # of every variant; the host's may be another
INSIDE = "/run/slipway/ide"
# Options that a path of headers follows, in the same word or in the next.
OPTIONS = ("-I", "-isystem", "-iquote", "-idirafter", "-include", "-imacros")
LAUNCHERS = ("ccache", "sccache")
NOT_FOR_CLANG = ("nvcc",)  # whose options clangd does not know

# clang takes floating-point types away with it, in the C library's headers too; GCC does not.
NO_OPTIONS = ("-mgeneral-regs-only",)


def words_of(entry: Mapping[str, Any]) -> list[str]:
    """The command of one entry, without a compiler cache in front of it."""
    words = list(entry.get("arguments") or shlex.split(entry.get("command", "")))
    while words and PurePosixPath(words[0]).name in LAUNCHERS:
        words = words[1:]
    return words


def header_paths(words: Sequence[str]) -> list[tuple[int, str, str]]:
    """Where a command names headers: index of the word, the option it begins with, the path."""
    found = []
    for number, word in enumerate(words):
        if number and words[number - 1] in OPTIONS:
            found.append((number, "", word))
            continue
        joined = [option for option in OPTIONS if word.startswith(option) and word != option]
        if joined and word[len(max(joined, key=len)) :].startswith("/"):
            option = max(joined, key=len)
            found.append((number, option, word[len(option) :]))
    return found


def is_of_image(path: str, mounted: Sequence[str]) -> bool:
    """Whether a path is one of the image's: it is absolute, and nothing of the host's is there."""
    pure = PurePosixPath(path)
    return pure.is_absolute() and not any(pure.is_relative_to(place) for place in mounted)


def of_image(entries: Sequence[Mapping[str, Any]], mounted: Sequence[str]) -> list[str]:
    """The paths of headers that the commands name and only the image has."""
    found = {
        path
        for entry in entries
        for _, _, path in header_paths(words_of(entry))
        if is_of_image(path, mounted)
    }
    return sorted(found)


def for_editor(
    entries: Sequence[Mapping[str, Any]],
    headers: Path,
    mounted: Sequence[str],
    moved: Mapping[str, str],
    more: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The entries of a compilation database as clangd on the host reads them.

    What is compiled of the image's own files, nobody opens on the host: it is left out.

    :param headers: the copy of the image's headers.
    :param mounted: paths inside at which something of the host's stands.
    :param moved: those that stand elsewhere inside than on the host, and where on the host.
    :param more: options at the end of every command.
    """
    made = []
    for entry in entries:
        words = words_of(entry)
        compiler = PurePosixPath(words[0]).name if words else ""
        if not compiler or compiler in NOT_FOR_CLANG:
            continue
        if is_of_image(str(entry.get("file", "")), mounted):
            continue
        for number, option, path in header_paths(words):
            if is_of_image(path, mounted):
                words[number] = f"{option}{headers.as_posix()}{path}"
        options = [f"--target={TARGET}", f"--sysroot={headers.as_posix()}"]
        kept = (word for word in words[1:] if word not in NO_OPTIONS)
        words = [compiler, *options, *kept, *more]
        texts = {key: str(entry[key]) for key in ("directory", "file", "output") if key in entry}
        made.append(
            {
                **{key: _back(text, moved) for key, text in texts.items()},
                "arguments": [_back(word, moved) for word in words],
            }
        )
    return made


def _back(text: str, moved: Mapping[str, str]) -> str:
    """A text with paths inside replaced by the host's."""
    for inside in sorted(moved, key=len, reverse=True):
        text = text.replace(inside, moved[inside])
    return text


def database_of(site: Site) -> Path:
    """The build's own compilation database."""
    native = site.build / "native"
    found = [
        file
        for file in (
            site.build / DATABASE,
            native / DATABASE,
            *sorted(native.glob(f"*/{DATABASE}")),
        )
        if file.is_file()
    ]
    if not found:
        raise SlipwayError(
            f"the build of {site.tree.project.name} has left no {DATABASE} for an editor",
            cause="CMake and Meson write one; "
            f"this tree is built by {site.tree.project.build.system}",
            fix=["build without --ide"],
            code=BAD_DATA,
        )
    return found[0]


def headers_of(site: Site) -> Path:
    """Where the headers of a site's image are copied to."""
    return site.workshop.out / "ide" / f"headers-{site.image.rpartition(':')[2]}"


def export(site: Site) -> None:
    """Write the compilation database for editors, once the headers that it needs are there."""
    workshop = site.workshop
    if workshop.dry:
        console.say("what an editor needs would be written to out/ide")
        return
    source = database_of(site)
    if not site.image:
        console.say(f"for the editor: {site.shown(source)}; its headers are this machine's")
        return
    entries = json.loads(source.read_text(encoding="utf-8"))
    places = {
        site.place.inside(path): str(path)
        for path in (m.instead_of or m.source for m in site.mounts() if not m.target)
    }
    headers = headers_of(site)
    copy_headers(site, headers, of_image(entries, [*places]))
    moved = {inside: path for inside, path in places.items() if inside != path}
    # GCC's own come last: clang has all but a few of them, such as omp.h.
    own = sorted((headers / "usr" / "lib" / "gcc").glob("*/*/include"))
    more = [word for path in own for word in ("-idirafter", path.as_posix())]
    made = for_editor(entries, headers, [*places], moved, more)
    title = f"{site.tree.project.name}-{site.out.name}"
    file = workshop.out / "ide" / title / DATABASE
    receipts.write_whole(file, json.dumps(made, indent=1) + "\n")
    console.say(f"{console.bold('for the editor')}: {site.shown(file)}, {len(made)} files")
    console.say(f"  clangd --compile-commands-dir={shlex.quote(str(file.parent))}")
    console.say("  or in .clangd beside the source, two lines:")
    console.say("    CompileFlags:")
    console.say(f"      CompilationDatabase: {json.dumps(str(file.parent), ensure_ascii=False)}")


def copy_headers(site: Site, headers: Path, wanted: Sequence[str]) -> None:
    """Copy the image's headers, unless they are there.

    :param wanted: the directories and files that must be among them, beside the compiler's own.
    """
    memory = headers / ".copied"
    try:
        copied = json.loads(memory.read_text())
    except (OSError, ValueError):
        copied = None
    if copied is not None and set(wanted) <= set(copied):
        return
    outputs.make(headers, site.workshop.out)
    paths = sorted({*wanted, *(copied or ())})
    job = Job(
        name=f"ide-{site.tree.project.name}-{site.variant}",
        command=[site.script("ide"), INSIDE, *paths],
        mounts=[Mount(site.workshop.scripts, readonly=True), Mount(headers, target=INSIDE)],
    )
    status = site.place.run(job, site.image)
    if status:
        raise SlipwayError(
            f"the headers of {site.image} were not copied: status {status}",
            cause="tar's words are above",
            fix=["df -h out", f"rm -r {shlex.quote(str(headers))}, then the same command"],
            code=status,
        )
    receipts.write_whole(memory, json.dumps(paths))
