"""What the files of a source tree tell about it: pure functions from texts to facts.

Nothing of the tree is run: setup.py is parsed, CMakeLists.txt is read call by call.
"""

from __future__ import annotations

import ast
import configparser
import email.parser
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.message import Message
from itertools import pairwise
from typing import Any

from slipway.records import Record
from slipway.survey.licences import of_name, of_text
from slipway.survey.needs import Wish
from slipway.versions import cmake_version, meson_version

LONGEST = 75  # characters of a summary, so that `apt search` shows it in one line

# Of [project.urls], in small letters, what comes nearest to a home page.
PAGES = ("homepage", "home", "home-page", "repository", "source", "source code", "github", "code")


class Facts(Record, frozen=True, kw_only=True):
    """What one file tells; empty: it does not."""

    where: str
    """The file, as its reader knows it."""
    name: str = ""
    version: str = ""
    summary: str = ""
    license: str = ""
    """An SPDX expression."""
    homepage: str = ""
    maintainer: str = ""
    """``Name <mail>``."""
    depends: tuple[str, ...] = ()
    """Requirements of a Python package when it runs."""
    tested: tuple[str, ...] = ()
    """Requirements of its tests."""


def one_line(text: str, name: str = "") -> str:
    """A summary as Debian wants it: one line, no full stop, no article, not the name first."""
    article = r"^(an?|the)\s+"
    begins = rf"^{re.escape(name)}\s*(:|–|—|-{{1,2}}|is\b)\s+" if name else "^$"
    text = " ".join(text.split()).rstrip(" .!")
    for pattern in (article, begins, article):
        text = re.sub(pattern, "", text, flags=re.IGNORECASE)
    if len(text) <= LONGEST:
        return text
    sentence = re.split(r"[.;!] ", text)[0]
    cut = sentence if len(sentence) <= LONGEST else sentence[: LONGEST + 1].rpartition(" ")[0]
    return re.sub(r"(\s(a|an|and|by|for|from|in|of|on|or|that|the|to|with))+$|[ .,;:-]+$", "", cut)


def person(name: str, mail: str) -> str:
    """``Name <mail>``, where both are told, in one field or two."""
    named, _, address = name.partition("<")
    mail = mail.strip() or address.rstrip("> ")
    if "<" in mail:  # METADATA of PEP 621 has both in the mail's field
        named, _, mail = mail.partition("<")
    named, mail = named.strip(' "'), mail.split(",")[0].strip("> ")
    return f"{named} <{mail}>" if named and re.fullmatch(r"[^\s<>@]+@[^\s<>@]+", mail) else ""


def licence(text: str) -> str:
    """A licence by its name, or by its text where that is what a field holds."""
    return of_name(text) if len(text) < 100 else of_text(text)


def of_classifiers(classifiers: Iterable[str]) -> str:
    """The licence that a Python package's classifiers name."""
    named = [of_name(text) for text in classifiers if text.startswith("License ::")]
    return next(filter(None, named), "")


# -- Python


def of_pyproject(data: Mapping[str, Any], where: str) -> Facts:
    """The ``[project]`` of a pyproject.toml."""
    project = data.get("project", {})
    given = project.get("license", "")
    named = given.get("text", "") if isinstance(given, dict) else str(given)
    people = [*project.get("maintainers", []), *project.get("authors", [])]
    known = [person(who.get("name", ""), who.get("email", "")) for who in people]
    urls = {key.lower(): url for key, url in project.get("urls", {}).items()}
    tests = {**project.get("optional-dependencies", {}), **data.get("dependency-groups", {})}
    return Facts(
        where=where,
        name=project.get("name", ""),
        version=project.get("version", ""),
        summary=project.get("description", ""),
        license=licence(named) or of_classifiers(project.get("classifiers", [])),
        homepage=next((urls[page] for page in PAGES if page in urls), ""),
        maintainer=next(filter(None, known), ""),
        depends=tuple(project.get("dependencies", [])),
        tested=tuple(
            text
            for key in ("test", "tests", "testing")
            for text in tests.get(key, [])
            if isinstance(text, str)
        ),
    )


def of_setup_cfg(text: str, where: str) -> Facts:
    """The ``[metadata]`` of a setup.cfg; what reads from other files is not followed."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error:
        return Facts(where=where)
    data = dict(parser["metadata"]) if parser.has_section("metadata") else {}
    told = {
        key.replace("-", "_"): value
        for key, value in data.items()
        if not value.startswith(("attr:", "file:"))
    }
    requires = parser.get("options", "install_requires", fallback="")
    told["classifiers"] = told.get("classifiers", "")
    return _of_setup(told, requires.splitlines(), told["classifiers"].splitlines(), where)


def of_setup_py(text: str, where: str) -> Facts:
    """What a setup.py hands to ``setup()`` word for word."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its author's escapes
            calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError):
        return Facts(where=where)
    called = [c for c in calls if ast.unparse(c.func) in ("setup", "setuptools.setup")]
    words: dict[str, Any] = {}
    for keyword in called[0].keywords if called else []:
        try:
            words[keyword.arg or ""] = ast.literal_eval(keyword.value)
        except ValueError:
            continue  # it would have to be run
    told = {key: value for key, value in words.items() if isinstance(value, str)}
    lists = [words.get(key, []) for key in ("install_requires", "classifiers")]
    requires, classifiers = (x if isinstance(x, list) else [] for x in lists)
    return _of_setup(told, requires, classifiers, where)


def _of_setup(
    told: Mapping[str, str], requires: Iterable[str], classifiers: Iterable[str], where: str
) -> Facts:
    people = [
        person(told.get(who, ""), told.get(f"{who}_email", "")) for who in ("maintainer", "author")
    ]
    return Facts(
        where=where,
        name=told.get("name", ""),
        version=told.get("version", ""),
        summary=told.get("description", ""),
        license=licence(told.get("license", "")) or of_classifiers(classifiers),
        homepage=told.get("url", ""),
        maintainer=next(filter(None, people), ""),
        depends=tuple(filter(None, requires)),
    )


def of_metadata(text: str, where: str) -> Facts:
    """An sdist's PKG-INFO, or a wheel's METADATA."""
    fields = email.parser.HeaderParser().parsestr(text)
    roles = ("Maintainer", "Author")
    people = [person(_field(fields, role), _field(fields, f"{role}-email")) for role in roles]
    urls = {}
    for row in fields.get_all("Project-URL", []):
        key, _, url = row.partition(",")
        urls[key.strip().lower()] = url.strip()
    page = _field(fields, "Home-page") or next((urls[p] for p in PAGES if p in urls), "")
    named = _field(fields, "License-Expression") or _field(fields, "License")
    return Facts(
        where=where,
        name=_field(fields, "Name"),
        version=_field(fields, "Version"),
        summary=_field(fields, "Summary"),
        license=licence(named) or of_classifiers(fields.get_all("Classifier", [])),
        homepage=page,
        maintainer=next(filter(None, people), ""),
        depends=tuple(fields.get_all("Requires-Dist", [])),
    )


def _field(fields: Message, name: str) -> str:
    value = fields.get(name, "")
    return "" if value == "UNKNOWN" else str(value)


# -- CMake and Meson


class Call(Record, frozen=True):
    """One call in a CMakeLists.txt."""

    name: str
    """In small letters, as CMake does not tell them apart."""
    arguments: tuple[str, ...]
    conditional: bool
    """Whether it stands in an if(), a loop, a function or a macro."""


TOKEN = re.compile(
    r"#\[(=*)\[.*?\]\1\]"  # a bracket comment
    r"|#[^\n]*"
    r"|\[(=*)\[(?P<bracket>.*?)\]\2\]"
    r'|"(?P<quoted>(?:\\.|[^"\\])*)"'
    r"|[()]"
    r'|[^\s()"#]+',
    re.DOTALL,
)
BLOCKS = ("if", "foreach", "while", "function", "macro")


def cmake_calls(text: str) -> list[Call]:
    """The calls of a CMakeLists.txt, in their order; comments are none."""
    calls: list[Call] = []
    arguments: list[str] = []
    name, depth, blocks = "", 0, 0
    for token in TOKEN.finditer(text):
        word = token["quoted"] or token["bracket"] or token[0].strip('"')
        if token[0].startswith("#"):
            continue
        if token[0] == "(":
            depth += 1
        elif token[0] == ")":
            depth = max(depth - 1, 0)
            if depth == 0:
                ends, begins = name in [f"end{block}" for block in BLOCKS], name in BLOCKS
                calls.append(Call(name, tuple(arguments), blocks > 0))
                blocks += begins - ends
                arguments = []
        elif depth:
            arguments.append(word)
        else:
            name = word.lower()
    return calls


def of_cmake(text: str, where: str) -> Facts:
    """The first ``project()`` of a CMakeLists.txt."""
    words = next((c.arguments for c in cmake_calls(text) if c.name == "project"), ())

    def after(keyword: str) -> str:
        values = [value for key, value in pairwise(words) if key == keyword]
        return values[0] if values and "$" not in values[0] else ""

    return Facts(
        where=where,
        name=words[0] if words and "$" not in words[0] else "",
        version=cmake_version(text) or "",
        summary=after("DESCRIPTION"),
        homepage=after("HOMEPAGE_URL"),
    )


def cmake_wishes(calls: Iterable[Call]) -> Iterator[Wish]:
    """The libraries that calls look for."""
    keywords = ("REQUIRED", "QUIET", "IMPORTED_TARGET", "GLOBAL", "NO_CMAKE_PATH")
    for call in calls:
        needed = "REQUIRED" in call.arguments and not call.conditional
        if call.name == "find_package" and call.arguments and "$" not in call.arguments[0]:
            name = call.arguments[0]
            yield Wish(name, f"find_package({name})", needed)
        if call.name in ("pkg_check_modules", "pkg_search_module"):
            for word in call.arguments[1:]:
                name = re.split(r"[<>=]", word)[0]
                if name and word not in keywords and "$" not in name and not name[0].isdigit():
                    yield Wish(name, f"{call.name}({name})", needed)


def test_switches(calls: Iterable[Call]) -> dict[str, bool]:
    """The options by which tests are switched on, and whether they are on by default."""
    found = {}
    for call in calls:
        if call.name in ("option", "cmake_dependent_option") and len(call.arguments) > 1:
            name, *more = call.arguments
            words = name.upper().split("_")
            special = any(SPECIAL.fullmatch(word) for word in words)
            if {"TEST", "TESTS", "TESTING"} & set(words) and not special:
                found[name] = not more[1:] or more[1].upper() not in ("OFF", "FALSE", "NO", "0")
    return found


# Tests that need more than this machine has, or are for something else than whether it works.
SPECIAL = re.compile(
    r"(BENCH|COVERAGE|CUDA|EXTERNAL|FUZZ|GPU|HIP|INSTALL|MPI|NIGHTLY|PERF|PYTHON|ROCM|SLOW|SYCL"
    r"|VALGRIND).*"
)


def of_meson(text: str, where: str) -> Facts:
    """The ``project()`` of a meson.build."""
    code = re.sub(r"#.*", "", text)
    call = re.search(r"\bproject\s*\((.*?)\)", code, re.DOTALL)
    words = call[1] if call else ""
    name = re.match(r"\s*'([^']+)'", words)
    told = re.search(r"\blicense\s*:\s*\[?\s*'([^']+)'", words)
    return Facts(
        where=where,
        name=name[1] if name else "",
        version=meson_version(text) or "",
        license=of_name(told[1]) if told else "",
    )


def meson_wishes(text: str) -> Iterator[Wish]:
    """The libraries that a meson.build looks for."""
    code = re.sub(r"#.*", "", text)
    for name, words in re.findall(r"\bdependency\s*\(\s*'([^']+)'([^)]*)", code):
        maybe = re.search(r"\brequired\s*:\s*(?!true)", words)
        yield Wish(name, f"dependency('{name}')", not maybe)


# -- Debian, README


def paragraphs(text: str) -> list[dict[str, str]]:
    """The paragraphs of a file such as debian/control: field, in small letters, to its text."""
    found = []
    for part in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        rows = re.findall(r"^([A-Za-z][\w-]*):[ \t]*(.*(?:\n[ \t].*)*)", part, re.MULTILINE)
        if rows:
            found.append({key.lower(): value.strip() for key, value in rows})
    return found


def of_control(text: str, where: str) -> Facts:
    """A debian/control."""
    source, *binaries = paragraphs(text) or [{}]
    plain = [b for b in binaries if not re.search(r"-(dev|doc|dbg|data)$", b.get("package", ""))]
    described = next((b.get("description", "") for b in [*plain, *binaries]), "").splitlines()
    return Facts(
        where=where,
        name=source.get("source", ""),
        summary=re.sub(r"\s*(\(.*\)| [-–] .*)$", "", described[0]) if described else "",
        homepage=source.get("homepage", ""),
        maintainer=person(source.get("maintainer", ""), ""),
    )


def of_copyright(text: str, where: str) -> Facts:
    """The licence of most files, in a debian/copyright that machines can read."""
    parts = paragraphs(text)
    most = [p for p in parts if p.get("files", "").split()[:1] == ["*"]]
    named = most[0].get("license", "").splitlines()[:1] if most else []
    return Facts(where=where, license=of_name(named[0]) if named else "")


def of_readme(text: str, where: str) -> Facts:
    """A README's heading, or the first sentence below where that is only the name."""
    lines = [_bare(line) for line in text.splitlines()[:60]]
    told = [line for line in lines if re.search(r"[^\W\d_]", line)]
    if not told:
        return Facts(where=where)
    title, *rest = told
    if len(title.split()) < 3 and rest:
        title = re.split(r"(?<=\w)\. ", " ".join(rest[:3]))[0]
    return Facts(where=where, summary=title)


def _bare(line: str) -> str:
    """A line of Markdown or reStructuredText without pictures, links and marks."""
    if re.match(r"\s*(\.\.|<|\[!\[|!\[|:\w+:|\||```|[=~^#*-]+\s*$)", line):
        return ""
    line = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]+>", "", line)
    line = re.sub(r"\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])", r"\1", line)
    return re.sub(r"[*`#]|\b_|_\b", "", line).strip()


READERS: dict[str, Callable[[str, str], Facts]] = {
    "setup.cfg": of_setup_cfg,
    "setup.py": of_setup_py,
    "PKG-INFO": of_metadata,
    "CMakeLists.txt": of_cmake,
    "meson.build": of_meson,
    "debian/control": of_control,
    "debian/copyright": of_copyright,
    "README.md": of_readme,
    "README.rst": of_readme,
    "README.txt": of_readme,
    "README": of_readme,
}
