"""Banks of drawn people: exact, resumable to the same bytes, and never with people that are kept for testing."""

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from training.engine.config import DataConfig
from training.world import bank as bank_module
from training.world.bank import HELD_OUT, Bank, open_bank, pose_seed
from training.world.captions import BUILD, COLOURS, KINDS, TOKENS, WIDTH, caption
from training.world.drawing import render
from training.world.measures import hidden
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

SIZE = (64, 48)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataConfig(size=SIZE, identities=4, views=3, workers=1, cache=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def bank(data):
    return open_bank(data)


def drawn(identity, view):
    return render(sample_identity(identity), sample_pose(pose_seed(identity, view)), SIZE)


def content(cache):
    folder, = cache.iterdir()
    return {file.name: file.read_bytes() for file in folder.glob("*.bin")}


def test_a_bank_holds_exactly_what_the_renderer_draws(bank):
    assert (bank.people, bank.views, bank.size) == (4, 3, SIZE)
    who, view = np.array([0, 3, 2]), np.array([2, 0, 1])
    images, poses, person = bank.images(who, view), bank.poses(who, view), bank.person(who, view)
    for row, (identity, number) in enumerate(zip(who, view, strict=True)):
        exact = drawn(identity, number)
        assert np.array_equal(((images[row].permute(1, 2, 0).numpy() + 1) * 127.5).round(), exact.image)
        assert poses[row].canvas == SIZE and np.array_equal(poses[row].present, exact.detected)
        assert np.array_equal(poses[row].xy[exact.detected], exact.keypoints[exact.detected])
        cells = (exact.part > 0).reshape(8, 8, 6, 8).mean((1, 3))
        assert np.allclose(person[row, 0], cells, atol=1e-6)
        iuv = exact.iuv()
        assert np.array_equal(bank.part[identity, number], iuv[..., 0])
        assert np.array_equal(bank.uv[identity, number], iuv[..., 1:])
        assert np.array_equal(bank.eyes[identity, number], exact.eyes)
        assert np.array_equal(bank.eyes_visible[identity, number], exact.eyes_visible)
        assert bank.zoom[identity, number] == np.float32(exact.zoom)
    assert images.min() >= -1 and images.max() <= 1 and images.dtype == torch.float32


def test_keypoints_lie_on_the_person_that_the_person_map_shows(bank):
    """A raster at another scale would train without an error: hips and neck must fall on body pixels."""
    hits = []
    for who in range(bank.people):
        pose = bank.poses([who], [0])[0]
        for joint in (1, 8, 11):
            x, y = pose.xy[joint].astype(int)
            if pose.on_canvas[joint]:
                hits.append(bank.part[who, 0, max(0, y - 1):y + 2, max(0, x - 1):x + 2].any())
    assert len(hits) >= 6 and all(hits)


def test_the_cache_is_used_again_and_another_setting_has_its_own(data, bank, monkeypatch):
    monkeypatch.setattr(bank_module, "_draw", lambda *_: pytest.fail("drew again"))
    assert np.array_equal(open_bank(data).image, bank.image)
    fewer = open_bank(dataclasses.replace(data, identities=2))   # the first people of the same bank
    assert fewer.people == 2 and np.array_equal(fewer.image, bank.image[:2])
    for change in ({"views": 2}, {"identities": 5}, {"seed": 7}, {"size": (64, 64)}):
        with pytest.raises(pytest.fail.Exception, match="drew again"):
            open_bank(dataclasses.replace(data, **change))


def test_a_bank_that_was_interrupted_goes_on_to_the_same_bytes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(bank_module, "CHUNK", 2)
    whole, broken = (dataclasses.replace(data, cache=str(tmp_path / name), identities=5, views=2)
                     for name in ("whole", "broken"))
    open_bank(whole)
    calls, person = [], bank_module._draw_person

    def in_this_process(folder, data, missing, people, first):
        folder.mkdir(parents=True, exist_ok=True)
        for name in bank_module._arrays(SIZE):
            (folder / f"{name}.bin").touch()
        for start, count in missing:
            bank_module._draw_chunk(folder, start, count, first, data)

    def breaks_off(identity, *rest):
        calls.append(identity)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return person(identity, *rest)

    monkeypatch.setattr(bank_module, "_draw", in_this_process)
    with monkeypatch.context() as patch:
        patch.setattr(bank_module, "_draw_person", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            open_bank(broken)
    folder, = (tmp_path / "broken").iterdir()
    assert len(list(folder.glob("done-*"))) == 1   # the first two people are kept
    again = []
    monkeypatch.setattr(bank_module, "_draw_person", lambda who, *rest: again.append(who) or person(who, *rest))
    assert open_bank(broken).people == 5
    assert again == [2, 3, 4]
    assert content(tmp_path / "whole") == content(tmp_path / "broken")


LEFT = """
import time
from training.world.workers import pool
with pool(3) as workers:
    [workers.submit(time.sleep, 0.1) for _ in range(5)]
    workers.submit(time.sleep, 0.1).result()
    print("drawing", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_leaves_no_workers_behind():
    run = subprocess.Popen([sys.executable, "-c", LEFT], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"drawing\n"
    run.kill()
    run.communicate(timeout=30)   # ends with the last process that holds the pipe


def test_a_larger_bank_goes_on_from_a_smaller_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(bank_module, "CHUNK", 2)
    grown, whole = (dataclasses.replace(data, cache=str(tmp_path / name), views=1) for name in ("grown", "whole"))
    for people in (3, 4):   # the second chunk is drawn again, since it was half a one
        assert open_bank(dataclasses.replace(grown, identities=people)).people == people
    open_bank(dataclasses.replace(whole, identities=4))
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


def test_two_runs_that_draw_the_same_people_do_not_disturb_each_other(data, tmp_path):
    one, both = (dataclasses.replace(data, cache=str(tmp_path / name), identities=3, views=1) for name in ("one", "both"))
    open_bank(one)
    runs = [threading.Thread(target=open_bank, args=(both,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert content(tmp_path / "one") == content(tmp_path / "both")


def test_held_out_people_are_never_training_people(data, bank):
    test = open_bank(data, held_out=3)
    assert test.people == 3
    assert np.array_equal(test.image[1, 2], drawn(HELD_OUT + 1, 2).image)
    for person in range(3):
        assert not any(np.array_equal(test.image[person, view], bank.image[other, view])
                       for other in range(4) for view in range(3))
        assert not any(np.array_equal(test.caption[person], bank.caption[other]) for other in range(4))
    with pytest.raises(ValueError, match="reaches into the held-out people, who start at 1000000"):
        open_bank(dataclasses.replace(data, seed=HELD_OUT - 3))


def test_other_kinds_of_data_are_refused(data):
    with pytest.raises(ValueError, match="data.kind is 'deepfashion'; this task is made for mannequins"):
        open_bank(dataclasses.replace(data, kind="deepfashion"))


def test_source_and_target_mostly_differ_in_framing():
    closer = np.array([[sample_pose(pose_seed(who, view)).zoom > 1 for view in range(4)] for who in range(300)])
    assert 0.45 < closer.mean() < 0.55 and (closer.sum(1) == 2).all()
    assert 0.5 < np.mean(closer[:, 0] != closer[:, 1]) < 0.8


# --- captions -----------------------------------------------------------------------------------------------

def test_captions_tell_people_apart_and_know_no_pose(bank):
    """A bank has one caption per person, whatever the views; the same rule gives it again."""
    assert bank.caption.shape == (4, TOKENS, WIDTH) and bank.caption.dtype == np.float32
    for person in range(4):
        assert np.array_equal(bank.caption[person], caption(sample_identity(person)))
    many = np.stack([caption(sample_identity(seed)) for seed in range(60)])
    distance = np.abs(many[:, None] - many[None]).max((2, 3)) + np.eye(60)
    assert distance.min() > 0.01 and np.isfinite(many).all() and np.abs(many).max() < 8


def test_a_caption_changes_only_where_the_person_does():
    who = sample_identity(3)
    other = dataclasses.replace(who, shoe=tuple(1.0 - c for c in who.shoe))
    changed = (caption(who) != caption(other)).any(1)
    assert changed[9] and changed.sum() == 1   # token 9 speaks of the feet


def test_every_number_of_a_person_is_told():
    """Each field but the seed changes the caption, so nothing that one sees is left to chance."""
    who = dataclasses.replace(sample_identity(3), top_pattern=1, bottom_pattern=2, sock=(0.2, 0.3, 0.4), sock_length=0.3,
                              belt=(0.3, 0.2, 0.1), letter=2, beard=0.5, bottom_kind=2, hair_style=1, collar=1)
    for field in dataclasses.fields(who):
        value = getattr(who, field.name)
        if field.name in ("seed", "build"):
            continue
        changed = tuple(0.9 * c + 0.05 for c in value) if isinstance(value, tuple) else \
            value - 1 if isinstance(value, int) else value * 0.9 + 0.01
        assert (caption(dataclasses.replace(who, **{field.name: changed})) != caption(who)).any(), field.name


def test_captions_name_the_colours_of_the_person():
    who = sample_identity(5)
    tokens = caption(who)
    for slot, colour in {0: who.skin, 1: who.hair, 2: who.top, 3: who.bottom, 9: who.shoe}.items():
        assert np.allclose(tokens[slot, COLOURS][:3] / 3 + 0.5, colour, atol=1e-6)
        assert tokens[slot, :16].argmax() == slot


def test_kinds_stand_where_the_table_says():
    for seed in range(40):
        who, tokens = sample_identity(seed), caption(sample_identity(seed))
        truth = {"hair": who.hair_style, "top": who.top_pattern, "collar": who.collar, "bottom": who.bottom_pattern,
                 "cut": who.bottom_kind, "letter": who.letter}
        assert set(truth) == set(KINDS)
        for name, kind in KINDS.items():
            columns = tokens[kind.token, kind.columns]
            if truth[name] >= 0:
                assert columns.argmax() == truth[name] and columns.sum() == columns.max() == kind.size
            assert kind.only is None or tokens[kind.token, kind.only] == (truth[name] >= 0)
        assert np.count_nonzero(tokens[BUILD[0], BUILD[1]]) >= 6


def test_a_bank_of_arrays_answers_by_picture():
    rng = np.random.default_rng(0)
    bank = Bank(rng.integers(0, 256, (2, 2, 8, 16, 3)).astype(np.uint8), np.zeros((2, 2, 8, 16), np.uint8),
                np.zeros((2, 2, 8, 16, 2), np.uint8), rng.random((2, 2, 18, 2)).astype(np.float32),
                np.ones((2, 2, 18), bool), np.zeros((2, 16, 64), np.float32), np.zeros((2, 2, 2, 2), np.float32),
                np.ones((2, 2, 2), bool), np.ones((2, 2), np.float32))
    assert torch.equal(bank.person(np.array([0]), np.array([1])), torch.zeros(1, 1, 1, 2))
    expected = bank.image[[1, 0], [0, 1]].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    assert np.allclose(bank.images(np.array([1, 0]), np.array([0, 1])), expected, atol=1e-6)


def test_turned_views_hide_what_the_others_show(tmp_path):
    data = DataConfig(size=(128, 96), identities=4, views=2, workers=1, turned=(150.0, 180.0), cache=str(tmp_path))
    turned, usual = open_bank(data), open_bank(dataclasses.replace(data, turned=()))
    right, left = (turned.keypoints[:, 0, joint, 0] for joint in (2, 5))   # shoulders, from behind
    assert (right > left).all() and not np.array_equal(turned.image, usual.image)
    assert hidden(turned) > 1.3 * hidden(usual)
    with pytest.raises(ValueError, match="expected two numbers of degrees"):
        open_bank(dataclasses.replace(data, turned=(30.0,)))
