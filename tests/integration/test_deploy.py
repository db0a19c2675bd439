"""``invoke deploy``: files that every Kubernetes takes, and clusters that refuse or are not there.

The test marked `cluster` wants of the cluster that KUBECONFIG names a storage class for volumes
that several machines write to, and of its machines that they have this engine's images, or fetch
them from the registry that SLIPWAY_REGISTRY names, to which this engine may push.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.integration.api_server import JOBS, api_server, kubeconfig
from tests.integration.conftest import Built
from tests.integration.workbench import (
    ROOT,
    Checkout,
    clone_working_tree,
    refused,
    snapshot,
    succeed,
)

VERSIONS = ("1.31", "1.34", "1.37")


@pytest.fixture(scope="module")
def checkout(area: Path) -> Checkout:
    """A clone in which nothing is built: no engine is asked for what these tests type."""
    root = area / "deploy" / "slipway"
    clone_working_tree(ROOT, root)
    return Checkout(root)


@pytest.fixture
def hull(tmp_path: Path) -> Path:
    """An application that needs nothing beside the production image."""
    folder = tmp_path / "hull"
    folder.mkdir()
    (folder / "train.py").write_text("print('hull trains')\n")
    return folder


def printed(checkout: Checkout, *arguments: str) -> str:
    """What ``deploy --dry-run`` puts on standard output, and nowhere else."""
    command = ["deploy", *arguments[:2], "--dry-run", *arguments[2:]]
    done = checkout.invoke(*command, stderr=subprocess.DEVNULL)
    return succeed(done)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("flags", ["--nodes 1", "--nodes 4 --gpus 2 --procs 2 -- --epochs 3"])
def test_what_is_written_is_what_the_api_of_that_version_takes(
    checkout: Checkout, hull: Path, version: str, flags: str
) -> None:
    documents = list(yaml.safe_load_all(printed(checkout, "--dir", str(hull), *flags.split())))
    assert [d["kind"] for d in documents] == ["Service", "PersistentVolumeClaim", "Job"]
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version
    broken = {**documents[2], "spec": {**documents[2]["spec"], "completions": "four"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_a_dry_run_prints_the_same_each_time_and_makes_nothing(
    checkout: Checkout, hull: Path
) -> None:
    before = snapshot(checkout.root), snapshot(hull)
    arguments = ("--dir", str(hull), "--nodes", "3", "--", "--name", "a b")
    first = printed(checkout, *arguments)
    assert printed(checkout, *arguments) == first
    assert (snapshot(checkout.root), snapshot(hull)) == before
    (container,) = list(yaml.safe_load_all(first))[2]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [
        *("/opt/slipway/launch", "python", "/app/train.py", "--name", "a b")
    ]
    assert "# hull:" in first  # the image was not pushed, and the file says so


# -- bad input


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ("--nodes 2", 64, ["no --dir"]),
        ("--dir examples/nosuch", 66, ["no folder", "invoke init --app examples/nosuch"]),
        ("--dir examples/lightgbm", 66, ["no train.py"]),
        ("--dir examples/digits --nodes 0", 64, ["--nodes 0"]),
        ("--dir examples/digits --procs -1", 64, ["--procs -1"]),
        ("--dir examples/digits --variant cpuu --dry-run", 64, ["no variant 'cpuu'"]),
    ],
)
def test_what_cannot_be_a_job(checkout: Checkout, flags: str, code: int, words: list[str]) -> None:
    refused(checkout.invoke("deploy", *flags.split()), code, *words)


@pytest.mark.parametrize("task", ["app", "deploy", "train"])
def test_a_name_that_no_image_may_have(checkout: Checkout, hull: Path, task: str) -> None:
    bad = hull.rename(hull.with_name("My Hull!"))
    done = checkout.invoke(task, "--dir", str(bad))
    refused(done, 64, "'My Hull!' is no name", "such as my-hull")


@pytest.mark.parametrize("task", ["app", "deploy", "train"])
def test_a_dockerfile_that_starts_from_something_else(
    checkout: Checkout, hull: Path, task: str
) -> None:
    (hull / "Dockerfile").write_text("FROM debian:trixie-slim\nCOPY . /app\n")
    done = checkout.invoke(task, "--dir", str(hull))
    refused(done, 65, "Dockerfile:1: starts from debian:trixie-slim", "FROM ${BASE}")


def test_a_dockerfile_without_the_launcher(checkout: Checkout, hull: Path) -> None:
    (hull / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY . /app\n")
    done = checkout.invoke("deploy", "--dir", str(hull))
    refused(done, 65, "brings no /opt/slipway/launch", "COPY --from=tools")


# -- a cluster that is not what it should be; it is asked before anything is made


def apply(checkout: Checkout, hull: Path, config: Path, **env: str) -> Any:
    command = ("deploy", "--dir", str(hull), "--nodes", "2", "--apply")
    return checkout.invoke(*command, env={"KUBECONFIG": str(config), **env})


def test_a_cluster_that_cannot_be_reached(checkout: Checkout, hull: Path, tmp_path: Path) -> None:
    with api_server({}) as server:
        port = server.server_address[1]
    done = apply(checkout, hull, kubeconfig(tmp_path / "config", port))  # nobody listens there now
    refused(done, 69, f"http://127.0.0.1:{port} does not answer", "Connection refused")
    assert "$ docker" not in done.stdout


def test_a_cluster_that_refuses(checkout: Checkout, hull: Path, tmp_path: Path) -> None:
    with api_server({}, refuses=403) as server:
        done = apply(checkout, hull, kubeconfig(tmp_path / "config", server.server_address[1]))
    refused(done, 69, "refuses: HTTP 403 Forbidden", 'User "ann" cannot do that', "can-i --list")
    assert server.objects == {}


def test_a_cluster_that_has_such_a_job_already(
    checkout: Checkout, hull: Path, tmp_path: Path
) -> None:
    with api_server({}) as server:
        server.objects[f"{JOBS}/hull"] = {"metadata": {"name": "hull"}}
        done = apply(checkout, hull, kubeconfig(tmp_path / "config", server.server_address[1]))
    refused(done, 75, "has a job hull already", "kubectl delete job hull")


@pytest.mark.parametrize("text", [None, "", "current-context: nowhere\n"])
def test_no_cluster_is_named(
    checkout: Checkout, hull: Path, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    done = apply(checkout, hull, tmp_path / "config")
    refused(done, 69, "no cluster is named", "export KUBECONFIG")


def test_kubernetes_client_is_missing(checkout: Checkout, hull: Path, tmp_path: Path) -> None:
    """In an environment with all that the tasks need, and no more."""
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    ours = Path(yaml.__file__).parents[1]
    for entry in ours.iterdir():
        if not entry.name.startswith("kubernetes"):
            (site / entry.name).symlink_to(entry)
    python = tmp_path / "env" / "bin" / "python"
    bare = Checkout(checkout.root, python=python)
    done = apply(bare, hull, kubeconfig(tmp_path / "config", 1))
    refused(done, 69, "Kubernetes' client for Python", "pip install", "requirements-cluster.txt")
    # All else goes on without it.
    assert printed(bare, "--dir", str(hull)).startswith("apiVersion: v1\n")


# -- a job that runs


def test_a_job_is_handed_over_followed_and_ends_as_it_does(
    built: Built, hull: Path, tmp_path: Path
) -> None:
    for exits, code, words in (
        ({0: 0, 1: 0}, 0, "the job has ended: Complete"),
        ({0: 69, 1: 3}, 3, "node 1 has failed with status 3"),
    ):
        with api_server(exits) as server:
            config = kubeconfig(tmp_path / "config", server.server_address[1])
            done = apply(built.checkout, hull, config)
        assert done.returncode == code, done.stdout
        for line in ("Job hull: made", "node 1 waits: ContainerCreating", "node 0: said by pod-0"):
            assert line in done.stdout
        assert words in done.stdout
        directory = built.checkout.out / "deploy" / "hull"
        files = {p.name: yaml.safe_load(p.read_text()) for p in directory.iterdir()}
        assert list(files.pop("kustomization.yaml")["resources"]) == [
            *("service.yaml", "volume.yaml", "job.yaml")
        ]
        stored = json.loads(json.dumps(list(server.objects.values())))
        assert sorted(stored, key=str) == sorted(files.values(), key=str)


def test_what_a_pod_may_do_is_enough(built: Built, hull: Path, tmp_path: Path) -> None:
    """The pod of the files in a container: its arguments, environment, user and read-only root."""
    (hull / "train.py").write_text(
        "import os, pathlib, sys\n"
        "out = pathlib.Path(os.environ['SLIPWAY_OUT'], 'made')\n"
        "out.write_text(f\"{os.environ['WORLD_SIZE']} {os.getuid()} {sys.argv[1]}\")\n"
        "pathlib.Path('/tmp/x').write_text('x')\n"
        "pathlib.Path.home().joinpath('x').write_text('x')\n"
    )
    flags = ("--dir", str(hull), "--nodes", "1", "--", "$HOME")
    succeed(built.checkout.invoke("deploy", *flags))
    file = built.checkout.out / "deploy" / "hull" / "job.yaml"
    pod = yaml.safe_load(file.read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    uid = pod["securityContext"]["runAsUser"]
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, uid, uid)
    argv = ["docker", "run", "--rm", "--init", "--network", "none", "--user", f"{uid}:{uid}"]
    argv += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    argv += ["--hostname", "hull-0", "--add-host", "hull-0.hull:127.0.0.1"]
    argv += ["--mount", f"type=bind,source={out},target=/work"]
    for mount in container["volumeMounts"]:
        if mount["mountPath"] != "/work":
            argv += ["--mount", f"type=tmpfs,target={mount['mountPath']},tmpfs-mode=1777"]
    for row in container["env"]:
        value = row.get("value", "0").replace("$(JOB_COMPLETION_INDEX)", "0")
        argv += ["--env", f"{row['name']}={value}"]
    argv += [container["image"], *(word.replace("$$", "$") for word in container["args"])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (out / "made").read_text() == f"1 {uid} $HOME"


@pytest.mark.cluster
def test_a_job_runs_on_the_cluster(built: Built, hull: Path) -> None:
    (hull / "train.py").write_text("import os\nprint('rank', os.environ['RANK'])\n")
    succeed(built.checkout.invoke("app", "--dir", str(hull)))
    registry = os.environ.get("SLIPWAY_REGISTRY")
    env = {"INVOKE_REGISTRY": registry} if registry else {}
    if registry:
        succeed(built.checkout.invoke("push", "--dir", str(hull), "--yes", env=env))
    done = built.checkout.invoke("deploy", "--dir", str(hull), "--nodes", "2", "--apply", env=env)
    said = succeed(done)
    for rank in range(2):
        assert f"node {rank}: rank {rank}" in said
    assert "the job has ended: Complete" in said


def test_this_file_is_run_by_a_python_that_has_the_client() -> None:
    """Else the tests above would see a client that is missing, and not a cluster."""
    code = "import kubernetes.client, kubernetes.config"
    subprocess.run([sys.executable, "-c", code], check=True)
