"""Photos that can no longer be read while a run draws them."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.line_task import LineTask, same
from tests.helpers.line_task import config as line
from tests.helpers.tiny import train_config
from training.data import latents
from training.data.arrays import NewArray
from training.data.latents import PhotoPosteriors
from training.data.pairs import Pairs
from training.engine.loop import UNREADABLE, StepBatches, run
from training.engine.shares import WHOLE
from training.engine.unreadable import UnreadablePhoto, readable, taken

PEOPLE = 6


@pytest.fixture
def pairs(tmp_path):
    """Six photos of one colour each, every one a pair with itself, number n of colour 40 n; opened as CFLD's data."""
    for split in ("train", "test"):
        (tmp_path / f"{split}_highres").mkdir()
        for n in range(PEOPLE):
            Image.new("RGB", (44, 64), (40 * n,) * 3).save(tmp_path / f"{split}_highres" / f"{n}.png")
        rows = [f"{n}.png: {list(range(18))}: {list(range(18))}" for n in range(PEOPLE)]
        (tmp_path / f"fasion-resize-annotation-{split}.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]))
        (tmp_path / f"fasion-resize-pairs-{split}.csv").write_text(
            "\n".join(["from,to", *(f"{n}.png,{n}.png" for n in range(PEOPLE))]))
    files = SimpleNamespace(base=tmp_path, vae=tmp_path)
    config = train_config(tmp_path, files, data={"kind": "deepfashion", "root": str(tmp_path)})
    taken()
    return Pairs(config, SimpleNamespace(latent_size=(8, 8), image_size=(8, 8), pose_size=(8, 8)), torch.device("cpu"))


def cut(pairs, *numbers):
    for n in numbers:
        path = pairs.train.folder / f"{n}.png"
        path.write_bytes(path.read_bytes()[:60])


def colours(batch):
    return (batch["target_image"].mean((1, 2, 3)) * 127.5 + 127.5).round().div(40).long().tolist()


def test_a_draw_that_meets_a_cut_photo_is_the_next_pair_and_the_others_stay(pairs):
    batches = StepBatches(pairs.batch, 7, WHOLE, 8, 0, 5)
    before = [colours(batches[k]) for k in range(5)]
    cut(pairs, 2, 3, 5)
    instead = {2: 4, 3: 4, 5: 0}   # modulo the number of pairs
    for k in (3, 0, 4, 1, 2, 1):   # whatever was drawn before
        batch = batches[k]
        assert colours(batch) == [instead.get(n, n) for n in before[k]]
        named = {n for n in (2, 3, 5) if any(f"{n}.png cannot be read" in photo for photo in batch.get(UNREADABLE, []))}
        met = set(before[k]) & {2, 3, 5}
        assert named == met | ({3} if 2 in met else set())
    assert len(pairs.held_out()["target"]) == PEOPLE and taken() == []


def test_a_folder_that_has_gone_is_an_error(pairs):
    cut(pairs, *range(PEOPLE))
    with pytest.raises(UnreadablePhoto, match="6 pairs in a row have such photos: are they still there"):
        pairs.batch(np.random.default_rng(0), 2)
    taken()
    with pytest.raises(KeyError):   # other errors are not taken for it
        readable({}.__getitem__, 0, 5)


def test_latents_of_a_cut_photo_are_named_and_never_drawn(pairs, tmp_path, monkeypatch, capsys):
    class Vae(torch.nn.Module):
        def encode(self, images):
            grey = torch.nn.functional.avg_pool2d(images, 8).mean(1, keepdim=True)
            return SimpleNamespace(latents=grey.expand(-1, 4, -1, -1))

    monkeypatch.setattr(latents, "load_vae", lambda _path: Vae())
    cut(pairs, 3)
    config = train_config(tmp_path, SimpleNamespace(base=tmp_path, vae=tmp_path))
    pairs.posteriors = PhotoPosteriors(pairs.train, config, torch.device("cpu"))
    said = capsys.readouterr()
    assert "3.png cannot be read" in said.out + said.err
    batches = StepBatches(pairs.batch, 7, WHOLE, 40, 0, 1)
    batch = batches[0]
    levels = (batch["target_latents"].mean((1, 2, 3)) * 127.5 + 127.5).div(40).round().long()
    assert set(levels.tolist()) == {0, 1, 2, 4, 5} and torch.isfinite(batch["target_latents"]).all()
    assert any("3.png could not be read when its latents were made" in photo for photo in batch[UNREADABLE])


def test_a_run_names_such_a_photo_once_and_again_at_the_end_and_draws_the_same_each_time(tmp_path, capsys):
    class Cut(LineTask):
        """Whose batches are rows of a table, of which two cannot be read."""

        def batch(self, rng, size):
            numbers = [readable(self.row, int(number), PEOPLE) for number in rng.integers(0, PEOPLE, size)]
            x = torch.tensor(numbers).float()[:, None].expand(-1, 3) / PEOPLE
            return {"x": x, "y": x[:, :2] * 2 + 1, "scale": torch.tensor(1.0)}

        def row(self, number):
            if number in self.cut:
                raise UnreadablePhoto(f"photos/{number}.png cannot be read (cut off)")
            return number

    def weights(name, *cut):
        Cut.cut = cut
        taken()
        return run(line(tmp_path / name, images=24, sample_every=0, save_every=0), Cut), capsys.readouterr()

    first, said = weights("first", 1, 4)
    middle, end = said.out.rsplit("wrote ", 1)
    for number in (1, 4):
        named = f"photos/{number}.png cannot be read (cut off)"
        assert (said.err + middle).count(f"the next pair is taken instead: {named}") == 1 and named in end
    assert "2 photos could not be read, and other pairs were drawn in place of theirs; get them anew: " in end
    assert same(first, weights("second", 1, 4)[0])
    whole, said = weights("third")
    assert not same(first, whole) and "could not be read" not in said.out + said.err


def test_arrays_that_killed_runs_left_half_written_go(tmp_path):
    old, young, other = (tmp_path / name for name in ("a.npy.01234567.part", "a.npy.89abcdef.part", "b.npy.01234567.part"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (1, 1))
    with NewArray(tmp_path / "a.npy", (2, 3), np.float32) as array:
        array[1] = np.ones(3, np.float32)
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", young.name, other.name}   # the young one may be a run's
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 0, 0], [1, 1, 1]]
