"""What holds for every test: the CI tells which tests did not run, and a skip fails it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

IN_CI = os.environ.get("CI") == "true"
DESELECTED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DESELECTED] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of a cluster run wherever one is named."""
    if os.environ.get("KUBECONFIG"):
        return
    left_out = [item for item in items if item.get_closest_marker("cluster")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        marks = [name for name in ("full", "gpu", "cluster") if item.get_closest_marker(name)]
        if marks:
            item.config.stash[DESELECTED].append(f"{item.nodeid} ({', '.join(marks)})")


def skipped(config: pytest.Config) -> list[str]:
    """The tests, and the modules, that skipped themselves; an expected failure is none of them."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [report.nodeid for report in reporter.stats.get("skipped", [])] if reporter else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if IN_CI and skipped(session.config) and session.exitstatus in (0, 5):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not IN_CI:
        return
    if ids := skipped(config):
        terminalreporter.section("skipped, which the CI counts as failed", red=True)
        terminalreporter.write_line("\n".join(ids))
    if ids := config.stash[DESELECTED]:
        terminalreporter.section("not run here")
        terminalreporter.write_line("\n".join(ids))
