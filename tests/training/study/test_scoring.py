"""Scores of studies against float64 computed another way, and answers that do not belong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from training.study.scoring import fleiss_kappa, score, wilson
from training.user_study import main


@pytest.mark.parametrize("hits, count", [(0, 12), (7, 12), (12, 12), (525, 1000)])
def test_the_interval_holds_the_shares_that_a_z_test_does_not_reject(hits, count):
    """Wilson's interval is where |share - p| <= z sqrt(p (1 - p) / n): its edges are roots of that quadratic."""
    z = 1.959963984540054
    share = hits / count
    roots = np.sort(np.roots([1 + z**2 / count, -(2 * share + z**2 / count), share**2]).real)
    assert wilson(hits, count) == pytest.approx(tuple(np.clip(roots, 0, 1)), abs=1e-12)
    assert wilson(hits, count, 0.99)[0] <= wilson(hits, count)[0] and wilson(0, 0) == (0, 1)


def pairwise(ratings):
    """Kappa by counting pairs of people who agree, in float64; ratings (questions, people)."""
    questions, people = ratings.shape
    same = ratings[:, :, None] == ratings[:, None, :]
    agreed = (same.sum((1, 2)) - people) / (people * (people - 1))
    shares = np.array([(ratings == category).mean() for category in np.unique(ratings)], np.float64)
    return (agreed.mean() - (shares**2).sum()) / (1 - (shares**2).sum())


def test_kappa_equals_the_count_of_agreeing_pairs():
    rng = np.random.default_rng(0)
    ratings = np.where(rng.random((25, 9)) < 0.6, rng.integers(0, 4, (25, 1)), rng.integers(0, 4, (25, 9)))
    counts = [[int((row == category).sum()) for category in range(4)] for row in ratings]
    assert fleiss_kappa(counts) == pytest.approx(pairwise(ratings), abs=1e-12) and 0.2 < pairwise(ratings) < 0.6


def test_kappa_of_fleiss_own_example_and_of_nobody():
    """The table of Fleiss 1971 in the form of its textbooks: ten subjects, fourteen raters, kappa 0.210."""
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
             [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa([[5, 0], [0, 5]]) == 1 and fleiss_kappa([[1, 0]]) is None and fleiss_kappa([[3, 0]]) is None
    assert fleiss_kappa([[2, 1], [0, 3], [1, 0]]) == fleiss_kappa([[2, 1], [0, 3]]), "one answer agrees with nobody"


@pytest.fixture
def study(tmp_path):
    for folder in ("real", "a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.fromarray(np.full((20, 10, 3), 10 * number, np.uint8)).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def make(study, *more):
    main(["make", "--out", str(study / "out"), "--real", str(study / "real"), "--method", f"a={study / 'a'}", "--method",
          f"b={study / 'b'}", "--choices", "3", "--judged", "1", *more])


def test_answers_that_do_not_belong_are_refused(study):
    make(study)
    key = json.loads((study / "out" / "key.json").read_text())
    [choose] = [page for page in key["pages"] if page["kind"] == "choose"]
    question = choose["questions"][0]
    good = {"study": key["study"], "page": "choose", "person": "x", "answers": {question["name"]: question["pictures"][1]}}
    files = [study / "1.json", study / "2.json"]
    files[0].write_text(json.dumps(good))
    result = score(study / "out", files[:1])
    assert result["open"] == {"judge_1": 0, "judge_2": 0, "choose": 2}
    for wrong, message in ((good, "'x' answered page choose in another file too"),
                           (good | {"study": "other"}, "answers page 'choose' of study 'other'"),
                           (good | {"answers": {question["name"]: question["truth"]}}, "does not offer"),
                           (good | {"answers": {"nothing": "real"}}, "does not offer"),
                           ({"study": 1}, "is no file of answers")):
        files[1].write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            score(study / "out", files)


def test_a_study_that_cannot_be_made_says_why(study, capsys):
    for more, message in ((("--choices", "9"), "4 pictures have the same name in all folders; 9 choices"),
                          (("--judged", "3"), "need 6"),
                          (("--method", f"real={study / 'a'}"), "none called 'real'"),
                          (("--method", f"a={study / 'b'}"), "expected each once"),
                          (("--method", f"c={study}"), "no picture has the same name")):
        with pytest.raises(SystemExit) as stopped:
            make(study, *more)
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    make(study)
    with pytest.raises(SystemExit):
        make(study)
    assert "has a study already" in capsys.readouterr().err


def test_the_same_seed_asks_the_same(study):
    make(study, "--seed", "3")
    first = {path.name: path.read_bytes() for path in (study / "out").rglob("*") if path.is_file()}
    (study / "out").rename(study / "before")
    make(study, "--seed", "3")
    assert {path.name: path.read_bytes() for path in (study / "out").rglob("*") if path.is_file()} == first
