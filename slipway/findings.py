"""What clang-format, clang-tidy and ruff are told, and what their answers mean.

Nothing is run here, and nothing written: ``slipway.linting`` does that.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slipway.editors import NO_OPTIONS, NOT_FOR_CLANG, words_of
from slipway.errors import BAD_CONFIG, BAD_DATA, SlipwayError
from slipway.records import Record
from slipway.settings import LOADER

HEADERS = (".h", ".hh", ".hpp", ".hxx")
CXX = (".c", ".cc", ".cpp", ".cxx", *HEADERS)
BATCH = 200  # files in one command, whose words have an end

# What GCC knows and clang need not.
FOR_CLANG = ("-Wno-unknown-warning-option", "-Wno-ignored-optimization-argument")
COMPILES_NOT = "[clang-diagnostic-error]"
TIDY_FINDING = re.compile(
    r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+): (?:warning|error): (?P<words>.* \[[^\]]+\])$",
    re.MULTILINE,
)


class Tool(Record, frozen=True):
    """One of the tools: which files are for it, and what its settings are called."""

    name: str
    suffixes: tuple[str, ...]
    settings: tuple[str, ...]


FORMAT = Tool("clang-format", CXX, (".clang-format", "_clang-format"))
TIDY = Tool("clang-tidy", CXX, (".clang-tidy",))
RUFF = Tool("ruff", (".py", ".pyi"), (".ruff.toml", "ruff.toml", "pyproject.toml"))
TOOLS = (FORMAT, TIDY, RUFF)


class Finding(Record, frozen=True, order=True):
    """One thing that is not as the tree's settings want it."""

    file: Path
    line: int
    column: int
    """From 1; 0: the whole line."""
    words: str
    tool: str
    more: str = ""
    """Lines that explain it."""
    mendable: bool = False
    """Whether ``--fix`` mends it; of clang-tidy's, see ``Edit``."""

    @property
    def text(self) -> str:
        """As compilers say it, so that an editor opens it."""
        place = f"{self.file}:{self.line}:{f'{self.column}:' if self.column else ''}"
        return f"{place} {self.words}\n{self.more}".rstrip()


class Edit(Record, frozen=True, order=True):
    """Bytes of a file that clang-tidy would replace."""

    file: Path
    offset: int
    length: int
    text: str


class Step(Record, frozen=True):
    """One command of ``scripts/lint``."""

    name: str
    argv: Sequence[str]
    stdin: str = ""


class Said(Record, frozen=True):
    """What it said."""

    status: int
    out: str
    err: str


# -- deciding: clang-tidy's units


def deps_of(text: str, build: str) -> list[list[str]]:
    """What ``ninja -t deps`` lists: for each object the files that it is made of, as full paths.

    :param build: the directory that relative ones begin in.
    """
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(" ") and found:
            found[-1].append(posixpath.normpath(posixpath.join(build, line.strip())))
        elif ": #deps " in line:
            found.append([])
    return found


def units_of(
    sources: Collection[str], deps: Iterable[Sequence[str]], wanted: Iterable[str]
) -> dict[str, set[str]]:
    """What clang-tidy is run on, each with the files whose findings count there.

    A source that is compiled stands for itself, a header for the first that includes it. What
    nobody compiles is not looked at.

    :param sources: what the compilation database names.
    :param deps: see ``deps_of``.
    """
    units: dict[str, set[str]] = {}
    asked = set(wanted)
    for file in sorted(asked & set(sources)):
        units[file] = {file}
    headers = {f for f in asked - set(sources) if f.lower().endswith(HEADERS)}
    for files in deps:
        unit = next((file for file in files if file in sources), "")
        here = headers & set(files) if unit else set()
        if here:
            units.setdefault(unit, set()).update(here)
            headers -= here
    return units


# -- deciding: what the tools are told, and what they answer


def formatting(tool: Tool, program: str, inside: str) -> Step:
    """How a file should look, on standard output."""
    if tool is FORMAT:
        argv = [program, "--style=file", "--fallback-style=none", inside]
        return Step(f"{tool.name} {inside}", argv)
    argv = [program, "format", "--no-cache", "--force-exclude", "--stdin-filename", inside, "-"]
    return Step(f"{tool.name} format {inside}", argv, stdin=inside)


def ruff_checks(program: str, inside: Sequence[str]) -> list[Step]:
    """What is wrong with files, as JSON."""
    argv = [program, "check", "--no-cache", "--force-exclude", "--output-format=json"]
    starts = range(0, len(inside), BATCH)
    return [Step("ruff check", [*argv, *inside[n : n + BATCH]]) for n in starts]


def ruff_fix(program: str, inside: str) -> Step:
    """How a file looks once all is mended that can be safely, on standard output."""
    argv = [program, "check", "--no-cache", "--force-exclude", "--fix", "--exit-zero"]
    return Step(f"ruff check {inside}", [*argv, "--stdin-filename", inside, "-"], stdin=inside)


def tidying(program: str, database: str, unit: str, fixes: str) -> Step:
    """What is wrong with a source and its headers, and in the file ``fixes`` the remedies.

    :param database: the directory with the compilation database.
    """
    argv = [program, "--quiet", f"-p={database}", "--header-filter=.*", f"--export-fixes={fixes}"]
    argv += [f"--extra-arg={word}" for word in FOR_CLANG]
    return Step(f"{program} {unit}", [*argv, unit])


def misformatted(tool: Tool, file: Path, text: str, wanted: str) -> Finding | None:
    """A file that does not look as it should, at the first line that differs.

    :param wanted: empty where the tool leaves it alone, as a .clang-format-ignore may say.
    """
    if not wanted or wanted == text:
        return None
    old, new = text.splitlines(), wanted.splitlines()
    same = next(
        (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old[: len(new)])
    )
    line = max(1, min(same + 1, len(old)))
    return Finding(file, line, 0, f"not as {tool.name} has it", tool.name, mendable=True)


def ruff_findings(out: str) -> list[Finding]:
    """What ``ruff check`` answers."""
    found = []
    for row in json.loads(out or "[]"):
        place = row["location"]
        mendable = (row.get("fix") or {}).get("applicability") == "safe"
        words = f"{row['message']} [{row.get('code') or 'invalid-syntax'}]"
        file = Path(row["filename"])
        found.append(
            Finding(file, place["row"], place["column"], words, RUFF.name, mendable=mendable)
        )
    return found


def tidy_findings(out: str, build: str, counts: Collection[str]) -> list[Finding]:
    """What clang-tidy says of the files that count, each finding with the lines below it.

    :param build: the directory that relative paths begin in.
    """
    matches = [*TIDY_FINDING.finditer(out)]
    ends = [*(match.start() for match in matches), len(out)][1:]
    found = []
    for match, end in zip(matches, ends, strict=True):
        file = posixpath.normpath(posixpath.join(build, match["file"]))
        if file in counts:
            place = int(match["line"]), int(match["column"])
            more = out[match.end() : end].strip("\n")
            found.append(Finding(Path(file), *place, match["words"], TIDY.name, more))
    return [*dict.fromkeys(found)]  # what is compiled twice is told twice


def remedies_of(text: str, build: str, counts: Collection[str]) -> list[list[Edit]]:
    """What clang-tidy's ``--export-fixes`` holds for warnings, where only files that count change.

    A file that does not compile has none: what the compiler has guessed must not be written.
    """
    rows: Any = yaml.load(text, Loader=LOADER) or {}  # noqa: S506  # safe
    rows = rows.get("Diagnostics") or []
    if any(row.get("Level") == "Error" for row in rows):
        return []
    found = []
    for row in rows:
        edits = [
            Edit(
                Path(posixpath.normpath(posixpath.join(build, part["FilePath"]))),
                *(part["Offset"], part["Length"], part["ReplacementText"]),
            )
            for part in row["DiagnosticMessage"].get("Replacements") or []
        ]
        if edits and all(edit.file.as_posix() in counts for edit in edits):
            found.append(edits)
    return found


def edited(remedies: Iterable[Sequence[Edit]], read: Callable[[Path], bytes]) -> dict[Path, bytes]:
    """Files with what is to be replaced in them replaced.

    Of two remedies that touch the same bytes the second is left for another time.
    """
    accepted: set[Edit] = set()

    def clashes(edit: Edit) -> bool:
        return any(
            edit.file == other.file
            and edit != other
            and edit.offset <= other.offset + other.length
            and other.offset <= edit.offset + edit.length
            for other in accepted
        )

    for remedy in remedies:
        if not any(clashes(edit) for edit in remedy):
            accepted.update(remedy)
    texts: dict[Path, bytes] = {}
    for edit in sorted(accepted, reverse=True):  # from the end, so that offsets stay true
        text = texts.setdefault(edit.file, read(edit.file))
        after = text[edit.offset + edit.length :]
        texts[edit.file] = text[: edit.offset] + raw(edit.text) + after
    return texts


def failure(tool: Tool, said: Said, found: Collection[Finding] = ()) -> SlipwayError | None:
    """What it means when a tool itself has failed, rather than found something."""
    if re.search(r"^(?:Error (?:parsing|reading) |ruff failed$)", said.err, re.MULTILINE):
        return SlipwayError(
            f"{tool.name} cannot read its settings",
            cause="\n".join(dict.fromkeys(said.err.strip().splitlines())),
            fix=["invoke lint, once that file is mended"],
            code=BAD_CONFIG,
        )
    told = any(COMPILES_NOT in finding.words for finding in found)
    elsewhere = COMPILES_NOT in said.out and not told  # as in a header that does not count
    if said.status == 0 or (said.status == 1 and found and not elsewhere):
        return None
    words = f"{said.out if tool is TIDY else ''}{said.err}".strip().splitlines()
    return SlipwayError(
        f"{tool.name} failed: status {said.status}",
        cause="\n".join(words[-10:]),
        fix=["invoke lint, once that is mended"],
        code=BAD_DATA,
    )


def for_clang(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A compilation database as clang-tidy reads it: nvcc's left out, and what clang misreads."""
    made = []
    for entry in entries:
        words = [word for word in words_of(entry) if word not in NO_OPTIONS]
        if words and posixpath.basename(words[0]) not in NOT_FOR_CLANG:
            directory = str(entry.get("directory", ""))
            file = posixpath.normpath(posixpath.join(directory, entry["file"]))
            made.append({"directory": directory, "file": file, "arguments": words})
    return made


def unraw(data: bytes) -> str:
    """The text of a file, whatever its encoding."""
    return data.decode(errors="surrogateescape")


def raw(text: str) -> bytes:
    """The bytes that were a file's, whatever its encoding."""
    return text.encode(errors="surrogateescape")
