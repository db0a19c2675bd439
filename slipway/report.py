"""``report.html``: a release on one page that needs nothing but itself.

Each section is made of the manifest and of the bills of materials beside it; pictures are inline
SVG, in which every bar has its number as text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from slipway import console, sbom
from slipway.manifest import Manifest, ReleasedImage
from slipway.records import Record
from slipway.sbom import Bill

NAME = "report.html"
STYLE = Path(__file__).with_suffix(".css")

# Of the pictures, in units of their view box.
WIDTH, LABEL, ROW, HEIGHT = 1000, 330, 34, 22
ROOM = 110  # to the right of the longest bar, for its number
LETTER, WIDE_LETTER = 7.2, 8.3  # about what one of 12 px takes, and one of 13


class Segment(Record, frozen=True):
    """A part of a bar."""

    value: float
    kind: str
    """Its colour: ``all``, ``some``, ``own`` or ``idle``."""
    label: str = ""
    """Shown inside where there is room."""
    title: str = ""
    """Shown when it is pointed at."""


class Bar(Record, frozen=True):
    """A row of a picture."""

    label: str
    segments: tuple[Segment, ...]
    number: str
    """What the bar amounts to, behind it."""


class Cell(Record, frozen=True):
    """A cell of a table that is more than a text."""

    text: str
    style: str
    """``number`` or ``code``, and ``soft``, ``more`` or ``less``."""


Cells = list[str | Cell]


# -- pieces


def picture(bars: Sequence[Bar], title: str) -> str:
    """Horizontal bars on one scale."""
    longest = max((sum(s.value for s in b.segments) for b in bars), default=0) or 1
    scale = (WIDTH - LABEL - ROOM) / longest
    rows = []
    for number, bar in enumerate(bars):
        y, x = number * ROW + (ROW - HEIGHT) / 2, float(LABEL)
        baseline = y + HEIGHT / 2 + 4.5
        shown = shortened(bar.label, int((LABEL - 14) / WIDE_LETTER))
        rows.append(
            f'<text x="0" y="{baseline:.1f}">{escape(shown)}'
            f"<title>{escape(bar.label)}</title></text>"
        )
        for segment in bar.segments:
            width = segment.value * scale
            told = f"<title>{escape(segment.title)}</title>" if segment.title else ""
            rows.append(
                f'<rect class="{segment.kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
                f'height="{HEIGHT}" rx="2">{told}</rect>'
            )
            if segment.label and len(segment.label) * LETTER + 12 < width:
                rows.append(
                    f'<text class="inside" x="{x + 6:.1f}" y="{baseline:.1f}">'
                    f"{escape(segment.label)}</text>"
                )
            x += width
        rows.append(
            f'<text class="soft" x="{x + 8:.1f}" y="{baseline:.1f}">{escape(bar.number)}</text>'
        )
    box = f'viewBox="0 0 {WIDTH} {max(len(bars), 1) * ROW}"'
    return (
        f'<div class="wide"><svg {box} role="img" aria-label="{escape(title)}">'
        f"{''.join(rows)}</svg></div>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> str:
    """A table; a column whose cells are numbers has its head above them."""
    body = [[Cell(c, "") if isinstance(c, str) else c for c in row] for row in rows]
    styles = [body[0][i].style.split(" ")[0] if body else "" for i in range(len(head))]
    names = (
        f"<th{_style('number' if s == 'number' else '')}>{escape(h)}</th>"
        for h, s in zip(head, styles, strict=True)
    )
    lines = ("".join(f"<td{_style(c.style)}>{escape(c.text)}</td>" for c in row) for row in body)
    filled = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return (
        f'<div class="wide"><table><thead><tr>{"".join(names)}</tr></thead>\n'
        f"<tbody>{filled}</tbody></table></div>"
    )


def _style(style: str) -> str:
    return f' class="{style}"' if style else ""


def number(text: str | int) -> Cell:
    """A cell that stands to the right."""
    return Cell(f"{text:,}".replace(",", "\u2009") if isinstance(text, int) else text, "number")


def code(text: str) -> Cell:
    """A cell in the letters of a program; a long one is broken."""
    return Cell(text, "code" if len(text) > 20 else "code short")


def difference(new: float, old: float, unit: str = "MB") -> Cell:
    """How much more or less: ``+1.2 MB``, in bytes given, or a plain count."""
    change = new - old
    if not change:
        return Cell("as before", "number soft")
    shown = console.megabytes(abs(change)) if unit == "MB" else f"{abs(change):g}"
    sign, style = ("+", "more") if change > 0 else ("\u2212", "less")
    return Cell(f"{sign}{shown}", f"number {style}")


def shortened(text: str, length: int) -> str:
    """A text of at most so many letters, its middle left out."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def plural(noun: str, count: int) -> str:
    """``parts``, or ``part`` where there is one."""
    return noun if count == 1 else f"{noun}s"


def section(mark: str, title: str, *parts: str) -> str:
    """A section with its heading, empty where it has nothing to say."""
    text = "\n".join(part for part in parts if part)
    return f'<section id="{mark}"><h2>{escape(title)}</h2>\n{text}\n</section>' if text else ""


def paragraph(text: str) -> str:
    """A sentence or two."""
    return f"<p>{escape(text)}</p>"


def key(**meanings: str) -> str:
    """What the colours mean."""
    items = (
        f'<span class="key"><i class="{kind}"></i>{escape(text)}</span>'
        for kind, text in meanings.items()
    )
    return f"<p>{''.join(items)}</p>"


# -- sections


def images(manifest: Manifest) -> str:
    """The images' sizes, layer by layer, and which layers they share."""
    found = manifest.images
    if not found:
        return ""
    uses = Counter(digest for image in found for digest in {x.digest for x in image.layers})
    sizes = {x.digest: x.size for image in found for x in image.layers}
    kinds = {d: "own" if n == 1 else "all" if n == len(found) else "some" for d, n in uses.items()}
    bars = [Bar(i.alias, _segments(i, kinds), console.megabytes(i.size)) for i in found]
    apart, once = sum(i.size for i in found), sum(sizes.values())
    keys = {"all": "in all images", "some": "in several", "own": "in this one only"}
    rows: list[Cells] = []
    for digest, size in sorted(sizes.items(), key=lambda item: -item[1]):
        holders = [i for i in found if any(x.digest == digest for x in i.layers)]
        made_by = next(x.made_by for x in holders[0].layers if x.digest == digest)
        names = "all" if kinds[digest] == "all" else ", ".join(i.alias for i in holders)
        cells = [code(digest.removeprefix("sha256:")[:12]), number(console.megabytes(size))]
        rows.append([*cells, names, Cell(shortened(instruction(made_by), 160), "code")])
    ids: list[Cells] = [[i.alias, i.variant, code(i.id)] for i in found]
    return section(
        "images",
        "Images",
        paragraph(
            f"Counted apart they have {console.megabytes(apart)}; a registry and an engine keep "
            f"each shared layer once, {console.megabytes(once)} in all."
        ),
        picture(bars, "size of each image by layer"),
        key(**{k: text for k, text in keys.items() if k in kinds.values()}),
        "<details><summary>Layers <span>by size</span></summary>"
        + table(["layer", "size", "in", "made by"], rows)
        + "</details>",
        table(["image", "variant", "id"], ids),
    )


def _segments(image: ReleasedImage, kinds: Mapping[str, str]) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            layer.size,
            kinds[layer.digest],
            console.megabytes(layer.size),
            f"{console.megabytes(layer.size)}, {layer.digest[:19]}: {instruction(layer.made_by)}",
        )
        for layer in image.layers
        if layer.size
    )


def instruction(made_by: str) -> str:
    """What made a layer, without what BuildKit puts around it; the base's says nothing."""
    text = re.sub(r"^RUN (\|\d+ .*?)?/bin/sh -c ", "RUN ", made_by)
    return text.removesuffix(" # buildkit") or "the base image"


def origin(purl: str) -> str:
    """Where a part is from, of its package URL: ``deb/debian``, ``pypi``."""
    kind, _, rest = purl.removeprefix("pkg:").partition("/")
    return f"{kind}/{rest.partition('/')[0]}" if kind == "deb" else kind


def packages(manifest: Manifest) -> str:
    """Debian packages and wheels with their sizes."""
    files = [f for f in manifest.files if f.kind in ("deb", "wheel")]
    colour = {"deb": "all", "wheel": "own"}
    bars = [
        Bar(Path(f.name).name, (Segment(f.size, colour[f.kind]),), console.megabytes(f.size))
        for f in files
    ]
    keys = {"all": "Debian package", "own": "wheel"}
    there = {colour[f.kind] for f in files}
    rows: list[Cells] = [
        [f.name, f.variant, number(console.megabytes(f.size)), code(f.sha256)] for f in files
    ]
    return section(
        "packages",
        "Packages",
        picture(bars, "size of each package") if files else "",
        key(**{k: text for k, text in keys.items() if k in there}) if files else "",
        table(["file", "variant", "size", "SHA-256"], rows) if files else "",
    )


def times(manifest: Manifest) -> str:
    """Where the time went."""
    if not manifest.steps:
        return ""
    total = sum(s.seconds for s in manifest.steps)
    unchanged = sum(s.is_unchanged for s in manifest.steps)
    bars = [
        Bar(
            f"{s.name} {s.variant}".strip(),
            (Segment(s.seconds, "idle" if s.is_unchanged else "all"),),
            console.seconds(s.seconds) + (", unchanged" if s.is_unchanged else ""),
        )
        for s in manifest.steps
    ]
    return section(
        "time",
        "Where the time went",
        paragraph(
            f"{console.seconds(total)} in all; {unchanged} of {len(bars)} steps found what they "
            "make there already, and unchanged."
        ),
        picture(bars, "seconds of each step"),
        key(all="done now", idle="unchanged") if unchanged else "",
    )


def instruction_sets(manifest: Manifest) -> str:
    """What each variant asks of a CPU, as the audit found it."""
    rows: list[Cells] = [
        [i.name, i.variant, i.allowed, i.found, number(i.files), number(i.instructions)]
        for i in manifest.isa
    ]
    head = ["what", "variant", "allowed", "found", "files", "instructions"]
    told = "The highest instruction set in what was compiled for each variant, of every ELF file."
    return section("isa", "Instruction sets", paragraph(told), table(head, rows)) if rows else ""


def tests(manifest: Manifest) -> str:
    """The tests that passed."""
    rows: list[Cells] = [
        [t.what, t.variant, number(t.executed), ", ".join(t.not_run) or "-", day(t.since)]
        for t in manifest.tests
    ]
    head = ["where", "variant", "executed", "not run here", "when"]
    return section("tests", "Tests", table(head, rows)) if rows else ""


def bills(directory: Path) -> str:
    """The parts of each image and package."""
    texts = []
    for file, bill in read_bills(directory).items():
        rows: list[Cells] = [
            [p.name, p.version or "-", origin(p.purl), ", ".join(p.licenses) or "-"]
            for p in bill.rows
        ]
        count = f"{len(rows)} {plural('part', len(rows))}"
        texts.append(
            f"<details><summary>{escape(file.removesuffix(sbom.SUFFIX))} <span>{count}</span>"
            f"</summary>{table(['part', 'version', 'from', 'licences'], rows)}</details>"
        )
    told = "What each image and package is made of or depends on; the same as CycloneDX in sbom/."
    return section("parts", "Bills of materials", paragraph(told), *texts) if texts else ""


def read_bills(directory: Path) -> dict[str, Bill]:
    """The bills of a release by the names of their files."""
    files = sorted((directory / sbom.DIRECTORY).glob(f"*{sbom.SUFFIX}"))
    return {file.name: sbom.read(file) for file in files}


def parts_changed(new: Mapping[str, Bill], old: Mapping[str, Bill]) -> list[tuple[str, str, str]]:
    """Parts of any bill that came, went or have another version: name, before, now.

    The release's own packages are left out: they change each time.
    """

    def versions(found: Mapping[str, Bill]) -> dict[str, str]:
        own = {bill.name for bill in found.values()}
        seen: dict[str, set[str]] = {}
        for part in (p for bill in found.values() for p in bill.rows):
            if part.version and part.name not in own:
                seen.setdefault(part.name, set()).add(part.version)
        return {name: ", ".join(sorted(known)) for name, known in seen.items()}

    now, before = versions(new), versions(old)
    names = sorted(n for n in now.keys() | before.keys() if now.get(n) != before.get(n))
    return [(name, before.get(name, ""), now.get(name, "")) for name in names]


def changes(
    manifest: Manifest, before: Manifest | None, parts: Sequence[tuple[str, str, str]]
) -> str:
    """What is different from the release before: sizes, tests, parts."""
    if before is None:
        return section("changes", "What changed", paragraph("There is no release before this one."))
    old_images = {(i.kind, i.variant): i for i in before.images}
    old_files = {(f.kind, f.variant, _stem(f.name)): f for f in before.files}
    rows: list[Cells] = []
    for image in manifest.images:
        old_image = old_images.get((image.kind, image.variant))
        rows.append(_compared(image.alias, image.size, old_image.size if old_image else None))
    for file in (f for f in manifest.files if f.kind in ("deb", "wheel")):
        old_file = old_files.get((file.kind, file.variant, _stem(file.name)))
        rows.append(_compared(file.name, file.size, old_file.size if old_file else None))
    executed, earlier = (sum(t.executed for t in m.tests) for m in (manifest, before))
    difference_of_tests = difference(executed, earlier, "tests")
    rows.append(["tests executed", number(earlier), number(executed), difference_of_tests])
    gone = sorted(set(before.variants) - set(manifest.variants))
    moved = [[name, old or "-", new or "-"] for name, old, new in parts]
    return section(
        "changes",
        f"What changed since {before.version}",
        paragraph(f"From commit {before.commit[:12]} to {manifest.commit[:12]}."),
        paragraph(f"Not made any more: {', '.join(gone)}.") if gone else "",
        table(["what", "before", "now", "difference"], rows),
        paragraph("The base image is another one.") if before.base != manifest.base else "",
        (
            f"<h3>Parts that came, went or moved: {len(moved)}</h3>"
            + table(["part", "before", "now"], moved)
        )
        if moved
        else "",
    )


def _compared(name: str, size: int, before: int | None) -> Cells:
    now = number(console.megabytes(size))
    if before is None:
        return [name, number("-"), now, Cell("new", "number more")]
    return [name, number(console.megabytes(before)), now, difference(size, before)]


def _stem(file: str) -> str:
    """``oar`` of ``oar_1.2.0_amd64.deb``; of a wheel the Python too: it has one for each."""
    if file.endswith(".whl"):
        name, _, *tags = Path(file).name.split("-")
        return "-".join([name, *tags])
    return Path(file).name.partition("_")[0]


def provenance(manifest: Manifest) -> str:
    """What it was made of and with."""
    rows: list[Cells] = [
        ["commit", code(manifest.commit)],
        ["tag", code(manifest.tag or "none")],
        ["date of everything in it", f"{day(manifest.epoch)} ({manifest.epoch})"],
        ["made", day(manifest.made_at)],
        ["base image", code(manifest.base)],
    ]
    rows += [[name, version] for name, version in sorted(manifest.tools.items())]
    return section("made", "What it was made with", table(["what", "which"], rows))


def day(stamp: float) -> str:
    """A point in time, the same wherever the page is made: ``2023-11-14 22:13 UTC``."""
    return datetime.fromtimestamp(stamp, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def tiles(manifest: Manifest) -> str:
    """The release in a few numbers."""
    kinds = Counter(f.kind for f in manifest.files)
    executed = sum(t.executed for t in manifest.tests)
    took = sum(s.seconds for s in manifest.steps)
    found = {
        f"{plural('variant', len(manifest.variants))}: {', '.join(manifest.variants)}": str(
            len(manifest.variants)
        ),
        plural("Debian package", kinds["deb"]): str(kinds["deb"]),
        plural("wheel", kinds["wheel"]): str(kinds["wheel"]),
        plural("image", len(manifest.images)): str(len(manifest.images)),
        "tests executed, all passed": f"{executed}",
        "to make it": console.seconds(took),
    }
    items = (
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in found.items()
    )
    return f'<div class="tiles">{"".join(items)}</div>'


def page(
    directory: Path,
    manifest: Manifest,
    before: Manifest | None,
    directory_before: Path | None = None,
) -> str:
    """The page about a release.

    :param directory: the release, of which the bills of materials are read.
    :param before: the release before it, if there is one.
    :param directory_before: where that one lies, for its bills.
    """
    old = read_bills(directory_before) if directory_before else {}
    moved = parts_changed(read_bills(directory), old) if old else []
    sections = {
        "changes": changes(manifest, before, moved),
        "images": images(manifest),
        "packages": packages(manifest),
        "time": times(manifest),
        "isa": instruction_sets(manifest),
        "tests": tests(manifest),
        "parts": bills(directory),
        "made": provenance(manifest),
    }
    names = {
        "changes": "What changed",
        "images": "Images",
        "packages": "Packages",
        "time": "Time",
        "isa": "Instruction sets",
        "tests": "Tests",
        "parts": "Bills of materials",
        "made": "Made with",
    }
    links = "".join(
        f'<a href="#{k}">{escape(names[k])}</a>' for k, text in sections.items() if text
    )
    title = escape(f"{manifest.project} {manifest.version}")
    notice = (
        '<p class="notice">A rehearsal: nothing of it has been published.</p>'
        if manifest.is_rehearsal
        else ""
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: release report</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<div class="soft">commit <code>{escape(manifest.commit[:12])}</code>, {day(manifest.epoch)}</div>
{notice}
{tiles(manifest)}
<nav>{links}</nav>
</header>
{"".join(sections.values())}
<footer>Made by Slipway from manifest.json and sbom/; it loads nothing from anywhere.</footer>
</main>
</body>
</html>
"""
