"""Banks of drawn people: whole or absent, exact, and never with people that are kept for testing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from training.caption_loss import CaptionError
from training.engine.config import DataConfig
from training.world import bank as bank_module
from training.world.bank import HELD_OUT, Bank, open_bank, pose_seed
from training.world.captions import TOKENS, WIDTH, caption
from training.world.drawing import render, sample_identity, sample_pose

SIZE = (64, 48)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataConfig(size=SIZE, identities=4, views=3, workers=1, cache=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def bank(data):
    return open_bank(data)


def drawn(identity, view):
    return render(sample_identity(identity), sample_pose(pose_seed(identity, view)), SIZE)


def test_a_bank_holds_exactly_what_the_renderer_draws(bank):
    assert (bank.people, bank.views, bank.size) == (4, 3, SIZE)
    who, view = np.array([0, 3, 2]), np.array([2, 0, 1])
    images, poses, person = bank.images(who, view), bank.poses(who, view), bank.person(who, view)
    for row, (identity, number) in enumerate(zip(who, view, strict=True)):
        exact = drawn(identity, number)
        assert np.array_equal(((images[row].permute(1, 2, 0).numpy() + 1) * 127.5).round(), exact.image)
        assert poses[row].canvas == SIZE and np.array_equal(poses[row].present, exact.detected)
        assert np.array_equal(poses[row].xy[exact.detected], exact.keypoints.astype(np.float32)[exact.detected])
        cells = (exact.part > 0).reshape(8, 8, 6, 8).mean((1, 3))
        assert np.allclose(person[row, 0], cells, atol=1e-6)
        iuv = exact.iuv()
        assert np.array_equal(bank.part[identity, number], iuv[..., 0])
        assert np.array_equal(bank.uv[identity, number], iuv[..., 1:])
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
    assert len(hits) >= 8 and all(hits)


def test_the_cache_is_used_again_and_another_setting_has_its_own(data, bank, monkeypatch):
    monkeypatch.setattr(bank_module, "_draw", lambda *_: pytest.fail("drew again"))
    assert np.array_equal(open_bank(data).image, bank.image)
    for change in ({"views": 2}, {"identities": 5}, {"seed": 7}, {"size": (64, 64)}):
        with pytest.raises(pytest.fail.Exception, match="drew again"):
            open_bank(dataclasses.replace(data, **change))


def test_a_cache_appears_only_when_it_is_complete(data, tmp_path, monkeypatch):
    data = dataclasses.replace(data, cache=str(tmp_path / "cache"), identities=2, views=1)

    def breaks_off(drawn, **_):
        yield next(iter(drawn))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bank_module, "tqdm", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            open_bank(data)
    assert not list((tmp_path / "cache").iterdir())
    assert open_bank(data).people == 2
    assert [p.name.endswith(".part") for p in (tmp_path / "cache").iterdir()] == [False]


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the kernel does not list this process's maps here")
def test_no_map_of_a_cache_is_open_when_it_gets_its_name(data, tmp_path, monkeypatch):
    """Windows would refuse to rename the folder."""
    seen, move = [], bank_module._move

    def look(part, folder):
        seen.append((sorted(file.name for file in part.iterdir()), part.name in Path("/proc/self/maps").read_text()))
        move(part, folder)

    monkeypatch.setattr(bank_module, "_move", look)
    bank = open_bank(dataclasses.replace(data, cache=str(tmp_path / "cache"), identities=2, views=1))
    assert seen == [(["detected.npy", "image.npy", "keypoints.npy", "part.npy", "uv.npy"], False)]
    assert np.array_equal(bank.image[1, 0], drawn(1, 0).image)


def test_two_runs_that_draw_the_same_people_do_not_disturb_each_other(data, tmp_path, monkeypatch):
    data = dataclasses.replace(data, cache=str(tmp_path / "cache"), identities=1, views=1)
    bars = []

    def while_the_other_finishes(drawn, **_):
        if not bars:
            bars.append(1)
            open_bank(data)   # the other run draws the same, from start to end
        return drawn

    monkeypatch.setattr(bank_module, "tqdm", while_the_other_finishes)
    assert open_bank(data).people == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


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


# --- captions -----------------------------------------------------------------------------------------------

def test_captions_tell_people_apart_and_know_no_pose(bank):
    """A bank has one caption per person, whatever the views; the same rule gives it again."""
    assert bank.caption.shape == (4, TOKENS, WIDTH) and bank.caption.dtype == np.float32
    for person in range(4):
        assert np.array_equal(bank.caption[person], caption(sample_identity(person)))
    many = np.stack([caption(sample_identity(seed)) for seed in range(60)])
    distance = np.abs(many[:, None] - many[None]).max((2, 3)) + np.eye(60)
    assert distance.min() > 0.01 and np.isfinite(many).all()


def test_a_caption_changes_only_where_the_person_does():
    who = sample_identity(3)
    other = dataclasses.replace(who, shoe=tuple(1.0 - c for c in who.shoe))
    changed = (caption(who) != caption(other)).any(1)
    assert changed[9] and changed.sum() == 1   # token 9 speaks of the feet


def test_errors_of_colours_and_of_the_build_count_four_times():
    """Numbers of the caption are found by changing the person, not by the columns that the loss names."""
    who = sample_identity(3)
    truth = caption(who)[None]

    def error_of(other):
        """The loss of that change, and its plain mean squared error."""
        said = caption(other)[None]
        return CaptionError()(torch.from_numpy(said), torch.from_numpy(truth)).item(), ((said - truth) ** 2).mean()
    for name in vars(who.build):
        changed = dataclasses.replace(who.build, **{name: getattr(who.build, name) + 0.1})
        weighted, plain = error_of(dataclasses.replace(who, build=changed))
        assert plain > 0 and weighted == pytest.approx(4 * plain, rel=1e-5)
    weighted, plain = error_of(dataclasses.replace(who, hair=(0.11, 0.52, 0.93)))
    assert plain > 0 and weighted == pytest.approx(4 * plain, rel=1e-5)
    weighted, plain = error_of(dataclasses.replace(who, hair_style=(who.hair_style + 1) % 6))
    assert plain > 0 and weighted == pytest.approx(plain, rel=1e-5)


def test_captions_name_the_colours_of_the_person():
    who = sample_identity(5)
    tokens = caption(who)
    for slot, colour in {0: who.skin, 1: who.hair, 2: who.top, 3: who.bottom, 9: who.shoe}.items():
        assert np.allclose(tokens[slot, 16:19] / 3 + 0.5, colour, atol=1e-6)
        assert tokens[slot, :16].argmax() == slot


def test_a_bank_of_arrays_answers_by_picture():
    rng = np.random.default_rng(0)
    bank = Bank(rng.integers(0, 256, (2, 2, 8, 16, 3)).astype(np.uint8), np.zeros((2, 2, 8, 16), np.uint8),
                np.zeros((2, 2, 8, 16, 2), np.uint8), rng.random((2, 2, 18, 2)).astype(np.float32),
                np.ones((2, 2, 18), bool), np.zeros((2, 16, 64), np.float32))
    assert torch.equal(bank.person(np.array([0]), np.array([1])), torch.zeros(1, 1, 1, 2))
    expected = bank.image[[1, 0], [0, 1]].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    assert np.allclose(bank.images(np.array([1, 0]), np.array([0, 1])), expected, atol=1e-6)
