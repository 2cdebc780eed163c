"""Settings as dataclasses: names, types, ranges, unions and nested ones, and what each error says."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest

from pgpis_models.settings import RANGES, build, check_ranges, one_of, typed, within


@dataclass(frozen=True)
class Lens:
    focus: float = within(35.0, "more than 0")
    coated: bool = False


@dataclass(frozen=True)
class Pinhole:
    bore: float = 0.3


@dataclass(frozen=True)
class Camera:
    name: str
    size: tuple[int, int] = within((64, 48), "1 or more")
    steps: tuple[float, ...] = ()
    eye: Lens | Pinhole = field(default_factory=Lens)
    spare: Lens | None = None
    film: str = one_of("colour", "colour", "grey")
    more: dict[str, Any] = field(default_factory=dict)
    window: int | tuple[int, int] = 7


def test_a_tree_becomes_a_dataclass_with_defaults_tuples_and_numbers():
    made = build(Camera, {"name": "a", "size": [3, 4], "steps": ["1e-4", 2, 0.5], "more": {"any": [1, {"thing": None}]},
                          "eye": {"focus": 50}})
    assert made == Camera("a", (3, 4), (1e-4, 2.0, 0.5), Lens(50.0), more={"any": [1, {"thing": None}]})
    assert all(isinstance(step, float) for step in made.steps) and isinstance(made.eye.focus, float)
    assert build(Camera, asdict(made)) == made


@pytest.mark.parametrize(("tree", "expected"), [
    ({"spare": None}, {"spare": None}), ({"spare": {}}, {"spare": Lens()}), ({"eye": {"bore": 1}}, {"eye": Pinhole(1.0)}),
    ({"eye": {"coated": True}}, {"eye": Lens(coated=True)}), ({"window": 3}, {"window": 3}),
    ({"window": [8, 6]}, {"window": (8, 6)})])
def test_of_several_types_the_first_that_fits_is_taken(tree, expected):
    assert build(Camera, {"name": "a"} | tree) == replace(Camera("a"), **expected)


@pytest.mark.parametrize(("tree", "message"), [
    ({"nam": 1}, "unknown setting 'nam'; did you mean 'name'?"),
    ({"name": "a", "eye": {"focuss": 1.0}}, "unknown setting 'eye.focuss'; did you mean 'eye.focus'?"),
    ({"name": "a", "spare": {"coatd": True}}, "unknown setting 'spare.coatd'; did you mean 'spare.coated'?"),
    ({}, "the config lacks ['name']"),
    ({"name": 3}, "name is 3 (int); expected str"),
    ({"name": "a", "size": 3}, "size is 3; expected a list"),
    ({"name": "a", "size": "34"}, "size is '34'; expected a list"),
    ({"name": "a", "size": [1, 2, 3]}, "size has 3 values [1, 2, 3]; expected 2"),
    ({"name": "a", "size": [1, 2.5]}, "size is 2.5 (float); expected int"),
    ({"name": "a", "size": [1, True]}, "size is True (bool); expected int"),
    ({"name": "a", "steps": ["fast"]}, "steps is 'fast'; expected a number"),
    ({"name": "a", "steps": [True]}, "steps is True (bool); expected float"),
    ({"name": "a", "more": [1]}, "more is [1]; expected settings by name"),
    ({"name": "a", "eye": 3}, "eye is 3; expected settings by name"),
    ({"name": "a", "eye": {"coated": 1}}, "eye.coated is 1 (int); expected bool"),
    ({"name": "a", "spare": 3}, "spare is 3; expected settings by name"),
    ([1], "the config is [1]; expected settings by name"),
])
def test_what_does_not_fit_is_named(tree, message):
    with pytest.raises(ValueError) as caught:
        build(Camera, tree)
    assert str(caught.value) == message


def test_errors_begin_where_the_tree_stands():
    with pytest.raises(ValueError, match=r"^unknown setting 'cameras.left.nam'; did you mean 'cameras.left.name'\?$"):
        build(Camera, {"nam": 1}, "cameras.left")
    with pytest.raises(ValueError, match=r"^cameras.left lacks \['name'\]$"):
        build(Camera, {}, "cameras.left")
    with pytest.raises(ValueError, match="^here is 'x' .str.; expected int$"):
        typed(int, "x", "here")


INSIDE = {"1 or more": (1, 7, 1.5), "0 or more": (0, 0.0, 3), "more than 0": (1e-9, 5), "0 to 1": (0, 0.5, 1),
          "0 or more, and less than 1": (0, 0.999)}
OUTSIDE = {"1 or more": (0, 0.99, -3), "0 or more": (-1e-9, -1), "more than 0": (0, -2), "0 to 1": (-0.01, 1.01),
           "0 or more, and less than 1": (-0.1, 1, 1.5)}


def test_every_range_is_tried():
    assert INSIDE.keys() == OUTSIDE.keys() == RANGES.keys()


@pytest.mark.parametrize("expected", INSIDE)
def test_ranges_hold_their_bounds_and_refuse_what_is_not_finite(expected):
    @dataclass(frozen=True)
    class One:
        value: Any = within(0.5, expected)
    for value in (*INSIDE[expected], INSIDE[expected]):
        check_ranges(One(value))
    for value in (*OUTSIDE[expected], math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError) as caught:
            check_ranges(One(value))
        assert str(caught.value) == f"value is {value}; expected {expected}"
        with pytest.raises(ValueError) as caught:
            check_ranges(One((INSIDE[expected][0], value)))
        assert str(caught.value) == f"value is {[INSIDE[expected][0], value]}; expected {expected} of every value"


def test_ranges_are_checked_at_any_depth_and_no_range_is_none():
    check_ranges(Camera("a", eye=Pinhole(-3.0)))
    with pytest.raises(ValueError, match="^eye.focus is 0.0; expected more than 0$"):
        check_ranges(Camera("a", eye=Lens(0.0)))
    with pytest.raises(ValueError, match="^settings.spare.focus is -1.0; expected more than 0$"):
        check_ranges(Camera("a", spare=Lens(-1.0)), "settings.")
    with pytest.raises(ValueError, match="^film is 'sepia'; expected one of colour, grey$"):
        check_ranges(Camera("a", film="sepia"))


def test_a_choice_of_no_survives_yaml_which_reads_it_as_false():
    @dataclass(frozen=True)
    class Precise:
        precision: str = one_of("auto", "auto", "no")
        flag: bool = False

    assert build(Precise, {"precision": False, "flag": False}) == Precise("no", False)
    with pytest.raises(ValueError, match="precision is True"):
        build(Precise, {"precision": True})
