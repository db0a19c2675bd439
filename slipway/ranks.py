"""Who is who in a job of several nodes: one table, for containers here and for a cluster.

What is said here in ``SLIPWAY_*`` is read by ``scripts/launch`` in every node, which makes of it
what frameworks ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

PORT = 29400  # a node's first: where its launcher answers; the framework's follow
WAIT_S = 120  # so long the first node waits for the last
LAUNCH = "/opt/slipway/launch"  # the launcher's place in an application's image
OUT = "/work"  # where a job's files go: a directory of this machine, or a volume


def names(job: str, nodes: int, service: str = "") -> list[str]:
    """The nodes' host names in rank order: ``digits-0``; with a headless service,
    ``digits-0.digits``, as Kubernetes names the pods of an Indexed Job.
    """
    suffix = f".{service}" if service else ""
    return [f"{job}-{rank}{suffix}" for rank in range(nodes)]


def environment(
    rank: str, hosts: Sequence[str], *, port: int, procs: int, wait_s: int
) -> dict[str, str]:
    """What tells a node its place.

    :param rank: its number from 0 on, or what a cluster puts a number in place of, such as
        ``$(JOB_COMPLETION_INDEX)``.
    :param hosts: the names of all nodes, in rank order.
    :param port: the first port of every node, of ``2 + procs`` that it may use.
    :param procs: processes of each node.
    :param wait_s: seconds in which all nodes have to be there.
    """
    return {
        "SLIPWAY_RANK": rank,
        "SLIPWAY_NODES": str(len(hosts)),
        "SLIPWAY_HOSTS": ",".join(hosts),
        "SLIPWAY_PORT": str(port),
        "SLIPWAY_PROCS": str(procs),
        "SLIPWAY_WAIT_S": str(wait_s),
        "SLIPWAY_OUT": OUT,
    }
