"""Property tests: the same cases on every machine, whatever its speed, and how many there were."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("pgpis", derandomize=True, deadline=None, database=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.load_profile("pgpis")
