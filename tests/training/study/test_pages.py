"""The pages of a study, filled in by a scripted person in headless Chromium, and scored."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.browser.chromium import HERE, browser, missing_tools, playwright
from training.user_study import main

METHODS = ("alpha", "beta")
NAMES = [f"anna_to_anna{n}" for n in range(8)]
COLOURS = {"real": 0, "alpha": 1, "beta": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of eight targets and two methods; a picture's channel 0 says its method, channel 1 its number."""
    root = tmp_path_factory.mktemp("study")
    for method, code in COLOURS.items():
        (root / method).mkdir()
        for number, name in enumerate(NAMES):
            size = (64, 96, 3) if method == "real" else (64, 44, 3)
            pixels = np.full(size, 90, np.uint8) + np.arange(size[1], dtype=np.uint8)[None, :, None]
            pixels[..., 0], pixels[..., 1] = 60 * code, 20 * number
            Image.fromarray(pixels).save(root / method / f"{name}.png")
    main(["make", "--out", str(root / "out"), "--real", str(root / "real"), "--choices", "4", "--judged", "3", "--seed", "5",
          *(word for method in METHODS for word in ("--method", f"{method}={root / method}"))])
    return root


@pytest.fixture(scope="module")
def key(study):
    return json.loads((study / "out" / "key.json").read_text())


def test_pages_show_pictures_of_one_size_under_names_that_say_nothing(study, key):
    people = study / "out" / "people"
    assert sorted(path.name for path in people.iterdir()) == ["choose.html", "judge_1.html", "judge_2.html", "pictures"]
    files = sorted(path.name for path in (people / "pictures").iterdir())
    assert files == sorted(key["pictures"])
    for file, entry in key["pictures"].items():
        with Image.open(people / "pictures" / file) as picture:
            pixels = np.asarray(picture)
            assert picture.info == {} and pixels.shape == (64, 44, 3)
        assert pixels[30, 20, 0] == 60 * COLOURS[entry["method"]] and pixels[30, 20, 1] == 20 * NAMES.index(entry["name"])
    handed_out = "".join(path.read_text() for path in people.glob("*.html"))
    assert not any(word in handed_out for word in (*METHODS, *NAMES))


def test_a_person_sees_one_method_and_no_target_beside_its_copy(key):
    judge = [page for page in key["pages"] if page["kind"] == "judge"]
    seen = [[key["pictures"][question["pictures"][0]] for question in page["questions"]] for page in judge]
    assert {tuple(sorted({entry["method"] for entry in page} - {"real"})) for page in seen} == {("alpha",), ("beta",)}
    for kind in (True, False):   # real ones, generated ones: the same of every page
        names = [sorted(entry["name"] for entry in page if (entry["method"] == "real") == kind) for page in seen]
        assert len(names[0]) == 3 and names[0] == names[1]
    assert all(len({entry["name"] for entry in page}) == 6 for page in seen)
    [choose] = [page for page in key["pages"] if page["kind"] == "choose"]
    for question in choose["questions"]:
        assert {key["pictures"][file]["method"] for file in question["pictures"]} == set(METHODS)
        assert len({key["pictures"][file]["name"] for file in (*question["pictures"], question["truth"])}) == 1


@pytest.fixture(scope="module")
def filled(study):
    """What study.mjs saw: one person judges with the keys, two choose, one of them the first question with the mouse."""
    lacking = missing_tools()
    if lacking:
        pytest.skip(lacking)
    address = (study / "out" / "people").as_uri()
    judge = {"page": f"{address}/judge_1.html", "person": "Person 1", "keys": ["ArrowLeft", "ArrowRight"] * 3}
    choose = {"page": f"{address}/choose.html", "person": "Person 1", "keys": ["1", "2", "2", "2"], "clicked": True}
    other = choose | {"person": "Zoë", "clicked": False, "keys": ["1"] * 4}
    job = {"browser": browser(), "playwright": str(playwright()), "report": str(study / "report.json"), "folder": str(study),
           "people": [judge | {"screenshot": str(study / "judge.png")}, choose | {"screenshot": str(study / "choose.png")},
                      other]}
    (study / "job.json").write_text(json.dumps(job))
    result = subprocess.run([shutil.which("node"), str(HERE / "study.mjs"), str(study / "job.json")], capture_output=True,
                            text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((study / "report.json").read_text())


def test_answers_of_keys_and_mouse_are_of_the_pictures_that_were_shown(filled, key):
    assert filled["errors"] == []
    for person, answered in zip(filled["people"], (["real", "generated"] * 3, [1, 2, 2, 2], [1] * 4), strict=True):
        said = json.loads(open(person["file"]).read())
        assert len(said["answers"]) == len(answered) and all(seconds >= 0 for seconds in said["seconds"].values())
        for shown, answer in zip(person["shown"], answered, strict=True):
            files = [file for file, _, _ in shown]
            assert said["answers"][files[0].removesuffix(".png")] == (files[answer] if isinstance(answer, int) else answer)
            assert all(width == 44 and height > 500 for _, width, height in shown), "loaded, and large"
        assert person["undone"] == ["", f"{len(answered)} of {len(answered)}"]
        assert person["back"] == f"{len(answered)} of {len(answered)}", "a reload goes on at the open question"
    first, second = ([shown[0][0] for shown in person["shown"]] for person in filled["people"][1:])
    assert sorted(first) == sorted(second) and first != second, "an order of each person's own"


def test_the_score_counts_what_was_said(filled, study, key, capsys):
    files = [person["file"] for person in filled["people"]]
    main(["score", str(study / "out"), *files, "--json", str(study / "score.json")])
    printed = capsys.readouterr().out
    rows = {(row["method"], row["measure"]): row for row in json.loads((study / "score.json").read_text())["rows"]}
    judge, *chosen = (json.loads(open(file).read())["answers"] for file in files)
    method_of = {file: entry["method"] for file, entry in key["pictures"].items()}
    judged = [(method_of[f"{name}.png"], answer) for name, answer in judge.items()]
    [seen] = {method for method, _ in judged} - {"real"}
    assert rows[seen, "R2G"]["share"] == sum(pair == ("real", "generated") for pair in judged) / 3
    assert rows[seen, "G2R"]["share"] == sum(pair == (seen, "real") for pair in judged) / 3
    best = [method_of[answer] for answers in chosen for answer in answers.values()]
    for method in METHODS:
        assert rows[method, "Jab"]["share"] == best.count(method) / 8
        assert f"| {method} | Jab | {100 * best.count(method) / 8:.1f} |" in printed
    [unseen] = set(METHODS) - {seen}
    assert rows[unseen, "R2G"]["share"] is None and f"| {unseen} | R2G |  |  | 0 | 0 |" in printed
