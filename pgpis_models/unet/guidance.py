"""Guidance as a chain of terms: eps = term_0 + sum_k w_k (term_k - term_before)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .injections import Injections


@dataclass(frozen=True)
class Term:
    """One link of the chain.

    name: what the term shows the UNet ("null", "pose", "pose+appearance").
    weight: w_k, factor of (this term - the term `minus`); not used by the first term.
    minus: name of the term that is subtracted; the one before it when None.
    """

    name: str
    injections: Injections
    weight: float = 1.0
    minus: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"the guidance weight of {self.name!r} is {self.weight}; expected a finite number, such as 2")


@dataclass(frozen=True)
class Guidance:
    """A chain of guidance terms. Plain classifier-free guidance has two, CFLD's cumulative guidance (eq. 7) three."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"guidance terms {names}: expected at least one term, each with a name of its own")
        for index, term in enumerate(self.terms):
            if term.minus is not None and term.minus not in names[:index]:
                raise ValueError(f"term {term.name!r} subtracts {term.minus!r}, which does not come before it in {names}")

    def coefficients(self) -> tuple[float, ...]:
        """c_k with eps = sum_k c_k term_k; they sum to 1, so the chain may be applied to eps, v or x0 alike."""
        names = [term.name for term in self.terms]
        result = [1.0] + [0.0] * (len(names) - 1)
        for index, term in enumerate(self.terms[1:], start=1):
            result[index] += term.weight
            result[names.index(term.minus) if term.minus else index - 1] -= term.weight
        return tuple(result)

    def combine(self, predictions: Sequence[Tensor]) -> Tensor:
        """Predictions of the terms in order, each (B, ...) -> the guided prediction (B, ...)."""
        if len(predictions) != len(self.terms):
            raise ValueError(f"{len(predictions)} predictions for {len(self.terms)} guidance terms")
        names = [term.name for term in self.terms]
        result = predictions[0]
        for index, term in enumerate(self.terms[1:], start=1):
            before = predictions[names.index(term.minus) if term.minus else index - 1]
            result = result + term.weight * (predictions[index] - before)
        return result

    def needed(self) -> Guidance:
        """The shortest chain with the same result: terms of coefficient 0 are not run.

        With equal weights CFLD's three terms telescope to two: null + w (pose+appearance - null).
        """
        coefficients = self.coefficients()
        kept = [(t, c) for t, c in zip(self.terms, coefficients) if abs(c) > 1e-9]
        if len(kept) == len(self.terms):
            return self
        first = kept[0][0]
        return Guidance((replace(first, weight=1.0, minus=None),)
                        + tuple(replace(t, weight=c, minus=first.name) for t, c in kept[1:]))


def scales_of(modes: Mapping[str, Sequence[Any]], mode: str, given: Iterable[str] = ()) -> list[str]:
    """Names of the scales of a mode whose links, but for the first, have a `scale`.

    given: scales that a caller set. Raises ValueError for an unknown mode, and for a given scale that it does not use.
    """
    if mode not in modes:
        raise ValueError(f"unknown guidance mode {mode!r}; expected one of {list(modes)}")
    used = [link.scale for link in modes[mode][1:]]
    check_scales(mode, used, given)
    return used


def check_scales(mode: str, used: Sequence[str], given: Iterable[str]) -> None:
    """Raises ValueError for a given scale that a mode does not use."""
    unknown = sorted(set(given) - set(used))
    if unknown:
        raise ValueError(f"guidance mode {mode!r} has no scale {unknown}; it uses {list(used)}")
