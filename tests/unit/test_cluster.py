"""A job for Kubernetes: what its files say, what they are held to, and what a cluster answers."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from slipway import cluster, pods, ranks
from slipway.applications import Application, derived
from slipway.cluster import (
    INDEX,
    Plan,
    check_counts,
    check_launcher,
    documents,
    kustomization,
    quantity,
    reference,
    texts,
    write,
)
from slipway.errors import BAD_DATA, UNAVAILABLE, USAGE, SlipwayError
from slipway.pods import failure, news, refusal, state
from slipway.settings import ROOT, Workshop
from slipway.training import Run, Wanted
from tests.unit.fakes import make_workshop

PLAN = Plan("hull", "registry:5000/team/hull@sha256:1a", "", 3, 2, 0, "1Gi", ("--epochs", "3"))


def pod_of(plan: Plan) -> dict[str, Any]:
    spec: dict[str, Any] = documents(plan)["job.yaml"]["spec"]["template"]["spec"]
    return spec


def run_of(root: Path) -> Run:
    """The same job in containers of this machine."""
    wanted = Wanted("hull", PLAN.nodes, PLAN.procs, arguments=PLAN.arguments)
    return Run(make_workshop(root), wanted, "hull", "hull-1", "hull:1", 10**9)


def container_of(plan: Plan) -> dict[str, Any]:
    (found,) = pod_of(plan)["containers"]
    return dict(found)


# -- who is who


def test_containers_here_and_pods_there_get_their_place_from_one_table(tmp_path: Path) -> None:
    """All but the wait is the same, and a pod's number is put in by Kubernetes."""
    run = run_of(tmp_path)
    for rank in range(3):
        env = {row["name"]: row.get("value", "") for row in container_of(PLAN)["env"]}
        assert env.pop(INDEX) == ""
        there = {name: value.replace(f"$({INDEX})", str(rank)) for name, value in env.items()}
        here = dict(run.job(rank).env)
        assert (there.pop("SLIPWAY_WAIT_S"), here.pop("SLIPWAY_WAIT_S")) == ("600", "120")
        assert there == here


def test_both_run_the_same_command_and_write_to_the_same_place(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert container_of(PLAN)["args"] == list(run.job(0).command)
    assert ranks.OUT in [mount["mountPath"] for mount in container_of(PLAN)["volumeMounts"]]
    assert ranks.OUT in [mount.target for mount in run.job(0).mounts]


def test_the_index_stands_before_what_refers_to_it() -> None:
    """Kubernetes puts a variable into those after it only, and would add this one at the end."""
    first, *others = container_of(PLAN)["env"]
    assert first["name"] == INDEX
    assert pods.NUMBER in first["valueFrom"]["fieldRef"]["fieldPath"]
    assert f"$({INDEX})" in [row["value"] for row in others]


def test_every_node_is_found_by_the_name_that_the_service_gives_it() -> None:
    service, job = documents(PLAN)["service.yaml"], documents(PLAN)["job.yaml"]
    assert service["spec"]["selector"] == {pods.JOB: job["metadata"]["name"]}
    assert service["metadata"]["name"] == pod_of(PLAN)["subdomain"]
    env = {row["name"]: row.get("value") for row in container_of(PLAN)["env"]}
    assert env["SLIPWAY_HOSTS"] == "hull-0.hull,hull-1.hull,hull-2.hull"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 3)
    longest = ranks.names("x" * 50, 99999)[-1]  # a pod's host name is a label, of 63 at most
    assert len(longest) <= 63


def test_what_an_argument_says_is_not_taken_for_a_variable() -> None:
    plan = replace(PLAN, arguments=("$(HOME)", "a$b"))
    assert container_of(plan)["args"][-2:] == ["$$(HOME)", "a$$b"]


# -- what a restricted namespace lets in: the rules of the Pod Security Standards, by their names


def violations(pod: dict[str, Any]) -> list[str]:
    """The rules of the level `restricted` that a pod's specification breaks."""
    volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    volumes |= {"projected", "secret"}
    broken = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    whole = pod.get("securityContext", {})
    for volume in pod.get("volumes", ()):
        if not set(volume) - {"name"} <= volumes:
            broken.append("volume types")
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        own = {**whole, **container.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        checks = {
            "privileged": not own.get("privileged"),
            "host ports": not any(p.get("hostPort") for p in container.get("ports", ())),
            "privilege escalation": own.get("allowPrivilegeEscalation") is False,
            "running as non-root": own.get("runAsNonRoot") is True,
            "non-root user": own.get("runAsUser", 1) != 0,
            "seccomp": own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "capabilities": "ALL" in capabilities.get("drop", ())
            and set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
            "proc mount": own.get("procMount", "Default") == "Default",
            "sysctls": not own.get("sysctls"),
        }
        broken += [name for name, holds in checks.items() if not holds]
    return broken


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_restricted_namespace_lets_it_in(gpus: int) -> None:
    pod = pod_of(replace(PLAN, gpus=gpus))
    assert violations(pod) == []
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_rules_would_see_what_breaks_them() -> None:
    pod = {"containers": [{"securityContext": {"runAsUser": 0}}], "volumes": [{"hostPath": {}}]}
    assert set(violations({**pod, "hostNetwork": True})) == {
        *("hostNetwork", "volume types", "privilege escalation", "running as non-root"),
        *("non-root user", "seccomp", "capabilities"),
    }


# -- what it asks for


def test_what_a_node_writes_to_is_a_volume() -> None:
    pod = pod_of(PLAN)
    mounts = {row["name"]: row["mountPath"] for row in container_of(PLAN)["volumeMounts"]}
    volumes = {row["name"]: row for row in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    claim = documents(PLAN)["volume.yaml"]
    assert volumes["out"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert {mounts["shm"], mounts["tmp"], mounts["home"]} == {"/dev/shm", "/tmp", "/home/user"}
    entrypoint = (ROOT / "scripts" / "entrypoint").read_text()
    assert "HOME=/home/user" in entrypoint


def test_several_machines_write_to_the_volume_and_one_to_its_own() -> None:
    for nodes, mode in ((3, "ReadWriteMany"), (1, "ReadWriteOnce")):
        plan = replace(PLAN, nodes=nodes)
        assert documents(plan)["volume.yaml"]["spec"]["accessModes"] == [mode]
        assert ("all nodes on one machine" in texts(plan)["volume.yaml"]) is (nodes > 1)


def test_gpus_are_asked_for_where_they_are_wanted() -> None:
    assert "gpu" not in "".join(texts(PLAN).values())
    resources = container_of(replace(PLAN, gpus=2))["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "2" == resources["requests"]["nvidia.com/gpu"]


def test_memory_grows_with_the_processes() -> None:
    for procs in (1, 4):
        resources = container_of(replace(PLAN, procs=procs))["resources"]
        assert resources["limits"]["memory"] == f"{2 * procs}Gi" == resources["requests"]["memory"]


def test_a_node_that_ends_with_the_others_does_not_count_as_a_failure() -> None:
    """Else one failure of a job of four would take all its tries."""
    launcher = (ROOT / "scripts" / "launch").read_text()
    assert "UNAVAILABLE, CANNOT_CREATE, TEMPORARY, BAD_CONFIG = 64, 69, 73, 75, 78" in launcher
    rules = documents(PLAN)["job.yaml"]["spec"]["podFailurePolicy"]["rules"]
    by_code = {
        code: r["action"] for r in rules for code in r.get("onExitCodes", {}).get("values", ())
    }
    assert by_code == {69: "Ignore", 64: "FailJob", 78: "FailJob"}
    assert pod_of(PLAN)["restartPolicy"] == "Never"  # which the policy needs


# -- the files


def test_the_files_are_the_same_each_time_and_say_what_is_described() -> None:
    plan = replace(PLAN, remark="why: a tag # and 'more'")
    assert texts(plan) == texts(plan)
    assert {name: yaml.safe_load(text) for name, text in texts(plan).items()} == documents(plan)
    assert yaml.safe_load(kustomization([*texts(plan)]))["resources"] == [*documents(plan)]


def test_every_remark_stands_above_its_line() -> None:
    said = texts(PLAN)
    for name, remarks in cluster.REMARKS.items():
        for key, remark in remarks.items():
            words = r"\s+(?:# )?".join(map(re.escape, remark.split()))
            assert re.search(rf"# {words}\n[ -]*{key}:", said[name]), key


def test_no_line_is_too_long_to_read() -> None:
    plan = replace(PLAN, remark="word " * 60)
    assert max(len(line) for text in texts(plan).values() for line in text.splitlines()) <= 100


def test_the_files_go_to_a_directory_of_the_job_s_name(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    directory = write(workshop, "hull", texts(PLAN))
    assert directory == workshop.out / "deploy" / "hull"
    written = {file.name for file in directory.iterdir()}
    assert written == {"kustomization.yaml", *documents(PLAN)}
    dry = Workshop(tmp_path / "dry", workshop.settings, dry=True)
    assert not write(dry, "hull", texts(PLAN)).exists()


# -- the image


def test_an_image_that_was_pushed_is_named_by_its_digest() -> None:
    here = {"RepoDigests": ["hull@sha256:1", "registry:5000/team/hull@sha256:2"]}
    assert reference(here, "hull:1.2.0") == ("registry:5000/team/hull@sha256:2", "")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "has not been made here"),
        ({"RepoDigests": []}, "has not been pushed from here"),
        ({"RepoDigests": None}, "has not been pushed from here"),
        # What an engine with containerd's store says of an image that never left it.
        ({"RepoDigests": ["hull@sha256:1"]}, "has not been pushed from here"),
    ],
)
def test_any_other_has_its_tag_and_a_remark(image: dict[str, Any] | None, words: str) -> None:
    found, remark = reference(image, "hull:1.2.0")
    assert found == "hull:1.2.0"
    assert remark.startswith(f"hull:1.2.0 {words}")
    text = texts(replace(PLAN, image=found, remark=remark))["job.yaml"]
    assert re.search(rf"# hull:1.2.0 {words}[^\n]*\n( +# [^\n]*\n)* +image: hull:1.2.0\n", text)


# -- what is refused


@pytest.mark.parametrize(
    ("counts", "flag"),
    [((0, 1, 0), "--nodes 0"), ((2, -1, 0), "--procs -1"), ((2, 1, -1), "--gpus")],
)
def test_numbers_of_which_no_job_can_be_made(counts: tuple[int, int, int], flag: str) -> None:
    with pytest.raises(SlipwayError, match=flag) as caught:
        check_counts(*counts)
    assert caught.value.code == USAGE


def test_a_dockerfile_of_its_own_has_to_bring_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    own = Application("hull", tmp_path, (tmp_path / "Dockerfile",))
    with pytest.raises(SlipwayError, match=re.escape(ranks.LAUNCH)) as caught:
        check_launcher(own)
    assert caught.value.code == BAD_DATA
    (tmp_path / "Dockerfile").write_text(derived(["train.py"]))
    check_launcher(own)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [("1g", "1Gi"), ("512M", "512Mi"), ("1.5 GB", "1.5Gi"), ("64mib", "64Mi"), ("1000", "1000")],
)
def test_a_size_in_the_words_of_kubernetes(size: str, wanted: str) -> None:
    assert quantity(size) == wanted


def test_a_size_that_is_none() -> None:
    with pytest.raises(SlipwayError, match="shm_size: 'much'"):
        quantity("much")


# -- what a cluster says


def pod(
    number: int, phase: str, status: int = 0, container: dict[str, Any] | None = None
) -> dict[str, Any]:
    ended = {"exitCode": status, "finishedAt": f"2026-01-01T00:00:{59 - number:02d}Z"}
    state = container or ({"terminated": ended} if phase in ("Failed", "Succeeded") else {})
    return {
        "metadata": {"name": f"hull-{number}-x", "annotations": {pods.NUMBER: str(number)}},
        "status": {"phase": phase, "containerStatuses": [{"state": state}]},
    }


def job(kind: str, message: str = "") -> dict[str, Any]:
    row = {"type": kind, "status": "True", "message": message}
    return {"metadata": {"name": "hull"}, "status": {"conditions": [row]}}


def test_a_job_ends_when_it_is_complete_or_has_failed() -> None:
    assert pods.ending({}) == ""
    assert pods.ending(job("Suspended")) == ""
    assert pods.ending(job("Complete")) == "Complete"
    assert pods.ending(job("Failed", "too often")) == "Failed: too often"
    assert pods.ending(pods.GONE) == "Failed: it was deleted"


def test_a_pod_that_waits_says_for_what() -> None:
    pulled = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    assert state(pod(0, "Pending", container=pulled)) == "waits: ImagePullBackOff: no such image"
    row = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    unplaced = {"metadata": {"name": "x"}, "status": {"phase": "Pending", "conditions": [row]}}
    assert state(unplaced) == "waits: 0/1 nodes are available"
    assert [state(pod(0, phase)) for phase in ("Running", "Succeeded", "Failed")] == [*pods.HEARD]
    assert state({"metadata": {"name": "x"}}) == "waits"


def test_only_what_has_changed_is_told_and_a_pod_is_heard_once() -> None:
    known: dict[str, str] = {}
    looks = [
        [pod(0, "Pending")],
        [pod(0, "Pending")],
        [pod(0, "Running"), pod(1, "Failed", 1)],
        [pod(0, "Succeeded"), pod(1, "Failed", 1)],
    ]
    told = [list(news(found, known)) for found in looks]
    assert told == [
        [("node 0", "hull-0-x", "waits", False)],
        [],
        [("node 0", "hull-0-x", "runs", True), ("node 1", "hull-1-x", "failed", True)],
        [("node 0", "hull-0-x", "succeeded", False)],
    ]


def test_a_job_fails_with_the_status_of_the_node_that_failed_first_by_itself() -> None:
    found = [pod(0, "Failed", 69), pod(1, "Failed", 3), pod(2, "Failed", 4), pod(3, "Succeeded")]
    error = failure(job("Failed", "too often"), found)
    assert error
    assert (error.code, error.what) == (4, "node 2 has failed with status 4")
    assert error.cause == "Failed: too often"


def test_a_node_that_ran_out_of_memory_is_told_from_one_that_was_killed() -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "x"}}
    error = failure(job("Failed"), [pod(1, "Failed", container=ended)])
    assert error
    assert (error.code, error.what) == (137, "node 1 has failed with status 137 (OOMKilled)")


def test_a_job_that_fails_without_a_guilty_node_has_a_status_of_ours() -> None:
    error = failure(pods.GONE, [pod(0, "Failed", 69)])
    assert error
    assert error.code == UNAVAILABLE
    assert failure(job("Complete"), [pod(0, "Failed", 3)]) is None  # it was tried again


def test_a_refusal_is_told_in_the_server_s_own_words() -> None:
    assert refusal('{"message": "jobs is forbidden"}') == "jobs is forbidden"
    assert refusal("<html>no</html>\n") == "<html>no</html>"
    assert refusal(None) == ""
    assert refusal("[]") == "[]"


# -- the client


def test_only_one_module_of_a_hundred_lines_knows_the_client_and_only_when_it_is_used() -> None:
    for file in (ROOT / "slipway").rglob("*.py"):
        text = file.read_text()
        imported = [
            node.col_offset
            for node in ast.walk(ast.parse(text))
            if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kubernetes"))
            or (isinstance(node, ast.Import) and any("kubernetes" in a.name for a in node.names))
        ]
        if file.name == "applying.py":
            assert imported
            assert 0 not in imported
            assert len(text.splitlines()) <= 100
        else:
            assert imported == [], file
