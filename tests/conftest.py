"""Property tests: the same cases on every machine, whatever its speed, and at the end of a run how many there were."""

from __future__ import annotations

import functools
from collections import Counter

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

settings.register_profile("pgpis", derandomize=True, deadline=None, database=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.load_profile("pgpis")

ran: Counter[str] = Counter()   # "cases": calls of what stands below @given


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = {id(item.obj): item.obj for item in items if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)}
    for test in tests.values():
        test.hypothesis.inner_test = counted(test.hypothesis.inner_test)


def counted(test):
    @functools.wraps(test)
    def call(*args, **kwargs):
        ran["cases"] += 1
        return test(*args, **kwargs)
    return call


def pytest_terminal_summary(terminalreporter) -> None:
    if ran["cases"]:
        terminalreporter.write_line(f"{ran['cases']} property cases")
