"""How much a refusal may cost: two seconds of processor time and 200 MB."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS, KILOBYTES = 2, 200_000


@contextmanager
def bounded() -> Iterator[None]:
    """What runs inside stays within both. The memory is the peak of the whole process, which never falls."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
