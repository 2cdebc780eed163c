"""Folders of photos on the command line: batches of different people, processes and a cluster that share the work, and what
is said when something cannot be read."""

import threading
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.command.batches import Process, in_batches
from pgpis_models.command.cluster import said
from pgpis_models.pipeline import Generator
from pgpis_models.qen.config import CONFIGS, QENConfig
from pgpis_models.qen.model import QEN
from pgpis_models.settings import build
from tests.helpers.configs import QEN_MODEL
from tests.helpers.fpdm_tiny import write_fpdm
from tests.helpers.tiny import shaken
from tests.pgpis_models.command.test_generate import command, folder, opened, pose  # noqa: F401 - folder is a fixture

ROWS = ("anna.png,p2.json,", "berta.png,p0.json,x/first.png", "anna.png,p0.json,", "anna.png,p1.json,", "berta.png,p2.json,")
NAMES = ("anna_p2.png", "x/first.png", "anna_p0.png", "anna_p1.png", "berta_p2.png")
WHO = (0, 1, 0, 0, 1)
POSES = (2, 0, 0, 1, 2)


@pytest.fixture(scope="module")
def people(folder):  # noqa: F811
    """Beside what `folder` holds a folder of two photos, checkpoints of three methods, and five pairs."""
    (folder / "people").mkdir()
    for seed, name in enumerate(("anna", "berta")):
        rgb = np.random.default_rng(10 + seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "people" / f"{name}.png")
    torch.manual_seed(2)
    method = shaken(QEN(build(QENConfig, asdict(CONFIGS["demo"]) | QEN_MODEL, "model")))
    weights = {name: 0.2 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(folder / "demo_qen.safetensors", method, weights, base="demo", step=0, data="none", licence="test")
    write_fpdm(folder)
    listed(folder / "pairs.csv", *ROWS)
    return folder


def listed(path, *rows, header="source,pose,out"):
    path.write_text("\n".join((header, *rows)) + "\n")
    return str(path)


def of_pairs(folder, out, *more):  # noqa: F811
    command(folder, "--pairs", str(folder / "pairs.csv"), "--steps", "2", "--seed", "3", *more, source="people",
            target="poses", out=out)
    return {path.relative_to(folder / out).as_posix(): opened(path).astype(int) for path in (folder / out).rglob("*.png")}


@pytest.mark.parametrize(("name", "encoder"), [("cfld", "backbone"), ("qen", "backbone"), ("fpdm", "source_tower")])
def test_pairs_of_a_batch_are_as_if_alone_and_each_photo_is_encoded_once(people, name, encoder, monkeypatch):
    generator = Generator(*(people / f"demo_{one}.safetensors" for one in (name, "base", "vae")))
    photos = [generator.prepare(opened(people / "people" / f"{who}.png")) for who in ("anna", "berta")]
    counted, settings = [], {"steps": 2, "seed": 3}
    hook = getattr(generator.method, encoder).register_forward_pre_hook(lambda _, given: counted.append(len(given[0])))
    made = generator.pairs(torch.cat(photos), [pose(n) for n in POSES], WHO, range(5), **settings)
    hook.remove()
    assert counted == [2]
    for number, picture in enumerate(made):
        [alone] = generator(photos[WHO[number]], [pose(POSES[number])], first=number, **settings)
        assert (picture - alone).abs().max() < 1e-4
    assert min(float((a - b).abs().max()) for a, b in ((made[0], made[4]), (made[2], made[3]))) > 0.01
    if name == "cfld":   # and of a method that cannot read a source apart from its pose
        monkeypatch.setattr("pgpis_models.pipeline.reads_apart", lambda _: False)
        again = generator.pairs(torch.cat(photos), [pose(n) for n in POSES], WHO, range(5), **settings)
        assert (again - made).abs().max() < 1e-4


def test_a_file_says_which_photo_comes_in_which_pose(people):
    generator = Generator(*(people / f"demo_{name}.safetensors" for name in ("cfld", "base", "vae")))
    made = of_pairs(people, "listed", "--batch", "4")
    assert sorted(made) == sorted(NAMES)
    for number, name in enumerate(NAMES):
        source = generator.prepare(opened(people / "people" / f"{('anna', 'berta')[WHO[number]]}.png"))
        [alone] = generator(source, [pose(POSES[number])], first=number, steps=2, seed=3)
        assert np.abs(made[name] - (alone.permute(1, 2, 0).numpy() * 255).round()).max() <= 1, name


@pytest.mark.parametrize(("rows", "header", "message"), [
    (["a,b"], "from,to", "has 1 rows with columns ['from', 'to']; expected source, pose and perhaps out"),
    (["anna.png,"], "source,pose", "row 1 of {file} names no pose; expected both"),
    (["carla.png,p1.json"], "source,pose", "names 1 files that are not there: ['{people}/carla.png']"),
    (["anna.png,p1.json"] * 2, "source,pose", "rows 1 and 2 of {file} both make anna_p1.png"),
    (["anna.png,p1.json,../a.png"], "source,pose,out", "row 1 of {file}: out is ../a.png; expected a path below --out"),
    (["anna.png,p1.json,a.txt"], "source,pose,out", "--out is a.txt, a .txt file"),
])
def test_lists_that_cannot_be_followed_are_named(people, tmp_path, capsys, rows, header, message):
    file = listed(tmp_path / "wrong.csv", *rows, header=header)
    with pytest.raises(SystemExit):
        command(people, "--pairs", file, source="people", target="poses", out="none")
    assert message.format(file=file, people=people / "people") in capsys.readouterr().err
    assert not (people / "none").exists()


@pytest.mark.parametrize(("more", "places", "message"), [
    (["--each", "1"], {"source": "people", "target": "poses"}, "--each came with --pairs, which says the poses of"),
    ([], {"source": "people", "target": "poses/p1.json"}, "--pairs came with --pose p1.json; expected the folder"),
    (["--ray", "auto"], {}, "--pairs, --ray came with one photo; expected --source to be a folder")])
def test_what_does_not_go_with_a_list_is_said(people, capsys, more, places, message):
    with pytest.raises(SystemExit):
        command(people, "--pairs", str(people / "pairs.csv"), *more, out="none", **places)
    assert message in capsys.readouterr().err


def test_several_processes_make_the_pictures_of_one(people, monkeypatch, capsys):
    alone = of_pairs(people, "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")   # as torchrun and accelerate launch do
    made = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        made.append(of_pairs(people, "shared"))
    assert [len(found) for found in made] == [3, 5] and made[1].keys() == alone.keys()
    assert all(np.abs(made[1][name] - alone[name]).max() <= 1 for name in alone)
    with pytest.raises(SystemExit):
        command(people)
    assert "2 processes were launched; expected one, or a folder of photos" in capsys.readouterr().err
    monkeypatch.delenv("RANK")
    with pytest.raises(SystemExit):
        of_pairs(people, "shared")
    assert "this one is not told which of them it is (RANK)" in capsys.readouterr().err


def test_shares_are_whole_and_have_gpus_of_their_own(monkeypatch):
    for count in (1, 3, 8):
        shares = [Process(index, count).share(range(7)) for index in range(count)]
        assert [item for share in shares for item in share] == list(range(7))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Process(5, 8, 1).device("cuda") == "cuda:1" and Process(0, 1).device("cuda") == "cuda"
    assert Process(5, 8, 1).device("cpu") == "cpu"


def test_a_photo_that_is_broken_is_named_when_those_before_it_are_written(people, capsys):
    (people / "some").mkdir()
    whole = (people / "people" / "anna.png").read_bytes()
    for name, data in {"a": whole, "b": whole, "c": whole[:99]}.items():
        (people / "some" / f"{name}.png").write_bytes(data)
    with pytest.raises(SystemExit):
        command(people, "--steps", "1", "--batch", "1", source="some", target="poses/p1.json", out="partly")
    assert "c.png cannot be read as a picture" in capsys.readouterr().err
    assert sorted(path.name for path in (people / "partly").iterdir()) == ["a_p1.png", "b_p1.png"]


def test_a_local_ray_makes_the_same_pictures(people):
    alone = of_pairs(people, "by_hand")
    made = of_pairs(people, "by_ray", "--ray", "local", "--batch", "2")
    assert made.keys() == alone.keys() and all(np.abs(made[name] - alone[name]).max() <= 1 for name in alone)


@pytest.mark.parametrize("text", [
    "ray::MapBatches(Worker)() (pid=1)\nTraceback (most recent call last):\n  File \"a.py\", line 3, in read\n"
    "OSError: c.png cannot be read as a picture; expected one of .png\n\nThe above exception was the direct cause of it:\n\n"
    "ray.exceptions.UserCodeException: UDF failed to process a data block.\nTo change retry attempts, configure them",
    "The actor died because of an error raised in its creation task, ray::MapWorker.__init__()\n  File \"a.py\", line 3\n"
    "OSError: c.png cannot be read as a picture; expected one of .png"])
def test_an_error_of_a_worker_is_one_line(text):
    assert said(RuntimeError(text)) == "OSError: c.png cannot be read as a picture; expected one of .png"
    assert said(RuntimeError("The node died\nand more")) == "The node died"
    assert said(RuntimeError()) == "RuntimeError"


# --- the loop -----------------------------------------------------------------------------------------------

def test_the_next_batch_is_read_and_the_last_one_written_while_one_is_made():
    reading, written, events = threading.Event(), threading.Event(), []

    def read(batch):
        if batch[0] == 4:
            reading.set()
        return list(batch)

    def make(batch):
        if batch[0] == 2:   # would never be set by a loop that does one after another
            assert reading.wait(5) and written.wait(5)
        return [10 * item for item in batch]

    def write(batch, inputs, made):
        events.append((tuple(batch), tuple(inputs), tuple(made)))
        written.set()
    in_batches(range(5), 2, read, make, write)
    assert events == [((0, 1), (0, 1), (0, 10)), ((2, 3), (2, 3), (20, 30)), ((4,), (4,), (40,))]


@pytest.mark.parametrize("where", ["read", "make", "write"])
def test_nothing_is_made_after_an_error_and_what_was_made_is_written(where):
    made, written = [], []

    def fails(name, item):
        if where == name and item == 3:
            raise OSError(name)

    def read(batch):
        fails("read", batch[0])
        return batch[0]

    def make(item):
        fails("make", item)
        made.append(item)
        return item

    def write(_batch, _inputs, item):
        fails("write", item)
        written.append(item)
    with pytest.raises(OSError, match=where):
        in_batches(range(50), 1, read, make, write)
    assert made == list(range(3)) if where != "write" else len(made) < 10
    assert written[:3] == [0, 1, 2]
