"""Applications: what a folder's image is made of, and what is refused before anything is made."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from slipway import images, init
from slipway.applications import (
    Application,
    alias_of,
    begin,
    check_free,
    check_name,
    check_start,
    derived,
    explain,
    find,
    recipe,
    starts,
    tools_recipe,
)
from slipway.errors import BAD_DATA, CANNOT_CREATE, NO_INPUT, UNAVAILABLE, USAGE, SlipwayError
from slipway.housekeeping import KINDS
from slipway.images import ALIAS, SECRET_LIMIT, secrets, stage
from slipway.ranks import LAUNCH
from slipway.settings import ROOT, Settings, Workshop
from tests.unit.fakes import make_tree, make_workshop

FILES = ("train.py", "requirements.txt", "apt.txt", "data/a.csv", "data/deep/b.csv", "more.py")


def make_folder(root: Path, *names: str) -> Path:
    """A folder called hull, with train.py and these files."""
    for name in ("train.py", *names):
        file = root / "hull" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n")
    return root / "hull"


def refusal(call: Any, *arguments: Any) -> SlipwayError:
    with pytest.raises(SlipwayError) as caught:
        call(*arguments)
    return caught.value


# -- a folder


def test_a_folder_s_files_are_sent_but_for_what_tools_leave_behind(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "data/x.csv", ".git/config", "__pycache__/train.pyc", ".secret")
    make_folder(tmp_path, "env/pyvenv.cfg", "env/lib/a.py", "data/.ipynb_checkpoints/x")
    (folder / "env" / "lib64").symlink_to("lib")  # as every virtual environment has it
    found = find(str(folder))
    assert found.name == "hull"
    sent = [file.relative_to(folder).as_posix() for file in found.files]
    assert sent == ["train.py", "data/x.csv"]


def test_a_link_goes_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "link.csv").symlink_to(make_folder(tmp_path / "other", "x.csv") / "x.csv")
    assert folder / "link.csv" in find(str(folder)).files


@pytest.mark.parametrize(("target", "words"), [("/nowhere", "to nothing"), ("/", "to a folder")])
def test_a_link_that_cannot_go_is_refused(tmp_path: Path, target: str, words: str) -> None:
    folder = make_folder(tmp_path)
    (folder / "link").symlink_to(target)
    error = refusal(find, str(folder))
    assert (error.code, words in error.what) == (NO_INPUT, True)


def test_what_is_no_application_is_refused(tmp_path: Path) -> None:
    assert refusal(find, "").code == USAGE
    error = refusal(find, str(tmp_path / "no such"))
    assert (error.code, error.what) == (NO_INPUT, f"no folder {tmp_path / 'no such'}")
    assert error.fix[0] == shlex.join(["invoke", "init", "--app", str(tmp_path / "no such")])
    error = refusal(find, str(tmp_path))
    assert (error.code, error.what) == (NO_INPUT, f"no train.py in {tmp_path}")


@pytest.mark.parametrize("name", ["a", "digits", "a-b2", "x" * 50])
def test_a_name_that_images_and_clusters_take(name: str) -> None:
    check_name(name, "rename")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("My App!", "my-app"),
        ("2048", ""),
        ("a_b", "a-b"),
        ("a-", "a"),
        ("x" * 51, "x" * 50),
        ("größe", "gr-e"),
    ],
)
def test_a_name_that_one_of_them_refuses(name: str, near: str) -> None:
    error = refusal(check_name, name, "rename it")
    assert error.code == USAGE
    assert error.fix == (f"rename it, such as {near}" if near else "rename it",)
    if near:
        check_name(near, "")


def test_the_name_of_the_library_s_own_images_is_taken(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "oar")
    for name in ("oar", "oar-book"):
        assert refusal(check_free, Application(name, tmp_path, ()), tree).code == USAGE
    check_free(Application("oars", tmp_path, ()), tree)


# -- its Dockerfile


def test_what_changes_most_often_comes_last() -> None:
    text = derived(FILES)
    order = [
        "apt-install @/run/apt.txt",
        "COPY --from=environment /opt/app /opt/app",
        f"COPY --from=tools /launch {LAUNCH}",
        "COPY data /app/data",
        "COPY train.py more.py /app/",
        'CMD ["python", "/app/train.py"]',
    ]
    places = [text.index(line) for line in order]
    assert places == sorted(places)
    assert len(re.findall("COPY data", text)) == 1


def test_what_a_folder_lacks_has_no_line() -> None:
    text = derived(["train.py"])
    assert "requirements" not in text
    assert "apt" not in text
    assert "environment" not in text
    assert LAUNCH in text


def test_names_with_blanks_are_copied_too() -> None:
    text = derived(["train.py", "my data/x.csv", "a b.txt"])
    assert 'COPY ["my data", "/app/my data"]\n' in text
    assert 'COPY ["train.py", "a b.txt", "/app/"]\n' in text


def test_names_are_no_patterns_and_no_variables() -> None:
    text = derived(["train.py", "a[1].csv", "cost$x.csv", "what?"])
    assert 'COPY ["train.py", "a[[]1].csv", "cost[$]x.csv", "what[?]", "/app/"]' in text


@pytest.mark.parametrize("names", [FILES, ("train.py",)])
def test_what_is_derived_would_do_as_the_folder_s_own(names: tuple[str, ...]) -> None:
    check_start(derived(names), "Dockerfile")


def test_the_folder_s_own_dockerfile_is_taken_as_it_stands(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY . /app\n")
    assert find(str(folder)).dockerfile == "ARG BASE\nFROM ${BASE}\nCOPY . /app\n"


@pytest.mark.parametrize(
    "text",
    [
        "ARG BASE\nFROM ${BASE}\n",
        "ARG BASE\nfrom $BASE as app\n",
        "ARG BASE\nFROM --platform=linux/amd64 ${BASE}\n",
        "ARG BASE\nFROM debian AS tools\nFROM ${BASE} AS one\nFROM one AS two\nFROM Two\n",
    ],
)
def test_a_dockerfile_that_starts_from_the_production_image(text: str) -> None:
    check_start(text, "Dockerfile")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("FROM debian:trixie-slim\n", (1, "debian:trixie-slim")),
        ("# FROM ${BASE}\nFROM scratch\n", (2, "scratch")),
        ("ARG BASE\nFROM ${BASE} AS one\nFROM python:3 AS two\n", (3, "python:3")),
        ("FROM python:3 AS one\nFROM one\n", (1, "python:3")),
        ("RUN true\n", (0, "")),
    ],
)
def test_a_dockerfile_that_starts_from_something_else(text: str, start: tuple[int, str]) -> None:
    assert starts(text) == start
    error = refusal(check_start, text, "hull/Dockerfile")
    assert error.code == BAD_DATA
    wanted = f"hull/Dockerfile:{start[0]}: starts from {start[1]}" if start[0] else "has no FROM"
    assert wanted in error.what
    assert "FROM ${BASE}" in error.fix[0]


# -- its image


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path / "checkout")


def recipe_of(workshop: Workshop, folder: Path, prod: str = "slipway-oar:1") -> images.Recipe:
    tree = make_tree(workshop.root / "examples" / "oar")
    return recipe(workshop, tree, "noavx", find(str(folder)), prod, "slipway-tools:1")


def test_an_image_is_another_one_when_a_file_or_what_it_starts_from_is(
    workshop: Workshop, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path)
    first = recipe_of(workshop, folder).key
    assert recipe_of(workshop, folder).key == first
    (folder / "train.py").write_text("another\n")
    keys = {first, recipe_of(workshop, folder).key}
    keys.add(recipe_of(workshop, folder, "slipway-oar:2").key)
    (folder / "requirements.txt").write_text("six\n")
    keys.add(recipe_of(workshop, folder).key)
    assert len(keys) == 4


def test_an_image_is_called_by_its_folder_and_the_library_s_version(
    workshop: Workshop, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path)
    made = recipe_of(workshop, folder)
    assert made.arguments == {"TOOLS": "slipway-tools:1"}
    assert made.labels[ALIAS] == "hull:1.2.0-noavx"
    tree = make_tree(workshop.root / "examples" / "oar")
    assert alias_of(find(str(folder)), tree, "cpu") == "hull:1.2.0"
    assert made.tag.startswith(f"slipway-{workshop.checkout}-hull-app:")
    assert KINDS.index(made.kind) > KINDS.index("prod")


def test_the_context_is_the_folder_and_any_uid_may_read_it(
    workshop: Workshop, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path, "data/x.csv")
    (folder / "data" / "x.csv").chmod(0o600)
    (folder / "train.py").chmod(0o700)
    context = tmp_path / "context"
    stage(recipe_of(workshop, folder), context)
    sent = {p.relative_to(context).as_posix(): p.stat().st_mode & 0o777 for p in context.rglob("*")}
    assert sent == {"train.py": 0o755, "data": 0o755, "data/x.csv": 0o644}


def test_all_that_a_folder_s_build_is_told_is_a_secret(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("x")
    mirrors = {"apt": "http://apt.example/debian", "pip": "https://pip.example/simple"}
    workshop = make_workshop(tmp_path, ca_bundle=str(bundle), mirrors=mirrors)
    argv = secrets(workshop, tmp_path, None)
    named = {word.partition(",")[0]: Path(word.partition("src=")[2]) for word in argv[1::2]}
    assert argv[::2] == ["--secret"] * 3
    assert named["id=ca"] == bundle
    assert named["id=apt"].read_text() == "http://apt.example/debian\n"
    assert "pip.example" in named["id=pip"].read_text()
    text = derived(FILES)
    assert all(f"--mount=type=secret,{name}" in text for name in named)


def test_a_bundle_that_cannot_be_a_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"x" * (SECRET_LIMIT + 1))
    workshop = make_workshop(tmp_path, ca_bundle=str(tmp_path / "ca.pem"))
    error = refusal(secrets, workshop, tmp_path, None)
    assert "ca_bundle" in error.fix[0]


def test_the_tools_are_those_that_the_dockerfile_mounts(workshop: Workshop) -> None:
    made = tools_recipe(workshop, "slipway-dev:0123456789ab")
    sent = {Path(name).name for name in made.files}
    used = set(re.findall(r"/run/(?:slipway|tools)/([a-z]+-install)", derived(FILES)))
    assert sent == used | {"launch"}
    assert made.tag.startswith("slipway-tools:")
    before = made.key
    (workshop.scripts / "launch").write_text("another\n")
    assert tools_recipe(workshop, "slipway-dev:0123456789ab").key != before


# -- what a failed build means

PIP = """\
#9 [environment 1/1] RUN --mount=type=cache,id=slipway-wheels /run/slipway/app-install /run/x
#9 1.204 WARNING: Location 'file:///x' is ignored: it is neither a file nor a directory.
#9 1.310 ERROR: Could not find a version that satisfies the requirement hulls==9 (from: 1)
#9 1.311 ERROR: No matching distribution found for hulls==9
#9 ERROR: executor failed running [/bin/sh -c /run/slipway/app-install /run/requirements.txt]: 1
------
 > [environment 1/1] RUN --mount=type=cache /run/slipway/app-install /run/requirements.txt:
#9 1.311 ERROR: No matching distribution found for hulls==9
"""
RETRY = "after connection broken by 'NewConnectionError('<x>: Failed to establish a new connection"


def test_a_requirement_that_does_not_exist_is_named() -> None:
    error = explain(PIP)
    assert error
    assert (error.code, error.what) == (NO_INPUT, "what requirements.txt names cannot be installed")
    assert error.cause.splitlines() == [
        "ERROR: Could not find a version that satisfies the requirement hulls==9 (from: 1)",
        "ERROR: No matching distribution found for hulls==9",
    ]


def test_an_index_that_is_away_is_not_taken_for_a_wrong_requirement() -> None:
    error = explain(PIP.replace("WARNING: Location", f"WARNING: Retrying {RETRY}"))
    assert error
    assert error.code == UNAVAILABLE
    assert "mirrors.pip" in error.fix[-1]


def test_a_debian_package_that_does_not_exist_is_named() -> None:
    said = """\
#7 2.9 Reading package lists...
#7 3.1 E: Unable to locate package nosuch
#7 ERROR: process "/bin/sh -c /run/tools/apt-install @/run/apt.txt" did not complete successfully
"""
    error = explain(said)
    assert error
    assert (error.code, error.cause) == (NO_INPUT, "E: Unable to locate package nosuch")
    assert "apt.txt" in error.what


def test_what_a_step_of_a_folder_s_own_says_is_left_to_docker() -> None:
    said = """\
#7 1.0 ERROR: no hull
#7 ERROR: process "/bin/sh -c python prepare.py" did not complete successfully: exit code: 1
"""
    assert explain(said) is None


def test_a_tool_that_breaks_is_not_taken_for_a_wrong_requirement() -> None:
    said = re.sub(r"#9 1\.31\d ERROR: [^\n]*\n", "", PIP)
    assert "app-install" in said
    assert explain(said) is None


# -- one to begin with


@pytest.fixture
def real() -> Workshop:
    """This checkout, whose starter is the real one."""
    return Workshop(root=ROOT, settings=Settings())


def test_a_new_application_is_one(real: Workshop, tmp_path: Path) -> None:
    begin(real, str(tmp_path / "hull"))
    found = find(str(tmp_path / "hull"))
    assert [file.name for file in found.files] == ["requirements.txt", "train.py"]
    compile(found.files[1].read_text(), "train.py", "exec")


def test_init_makes_it_too(real: Workshop, tmp_path: Path) -> None:
    init.init(real, "", app=str(tmp_path / "hull"))
    assert (tmp_path / "hull" / "train.py").is_file()


def test_what_is_there_is_not_written_over(real: Workshop, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    assert refusal(begin, real, str(folder)).code == CANNOT_CREATE
    assert (folder / "train.py").read_text() == "train.py\n"
    (tmp_path / "empty").mkdir()
    begin(real, str(tmp_path / "empty"))
    assert refusal(begin, real, str(tmp_path / "Hull 1")).code == USAGE


def test_dry_makes_nothing(
    real: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = Workshop(real.root, real.settings, dry=True)
    begin(dry, str(tmp_path / "hull"))
    assert not (tmp_path / "hull").exists()
    assert "would be made" in capsys.readouterr().out


def test_book_examples_and_starter_have_one_version_of_the_framework() -> None:
    files = [ROOT / "requirements-book.in", *ROOT.glob("examples/*/requirements.txt")]
    texts = [
        file.read_text() for file in [*files, ROOT / "scripts" / "starter" / "requirements.txt"]
    ]
    found = {
        version for text in texts for version in re.findall(r"^paddlepaddle==(\S+)", text, re.M)
    }
    assert len(found) == 1
    assert sum("paddlepaddle==" in text for text in texts) >= 3
