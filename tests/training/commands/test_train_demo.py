"""make train-demo: the whole set from nothing, a few images a stage; the files are of the kind that ships."""

import json

import pytest
import torch
from safetensors import safe_open

from pgpis_models.pipeline import DEMO_FOLDER, Generator
from pgpis_models.unet.weights import DIGEST
from tests.helpers.small import shrink
from training import train_demo
from training.engine.config import DataConfig
from training.world.bank import open_bank

FEW = ["images=4", "batch=4", "data.identities=4", "data.workers=0", "warmup_images=4", "save_every=0", "log_every=1",
       "precision=no"]
# Grids and measures of people never trained on are most of what so short runs cost; tests of the tasks look into them.
SMALL = {"world.bank.WATCHED_PEOPLE": 4, "world.autoencoder.SHOWN": 2, "world.reader.SHOWN": 2, "world.base.SHOWN": 2,
         "world.pairs.HELD_OUT_GRID": 2, "world.focal.HELD_OUT_GRID": 2, "tasks.fpdm.SHOWN": 2, "tasks.fpdm_fusion.SHOWN": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run of all stages; grids are sampled in one step."""
    folder = tmp_path_factory.mktemp("set")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, SMALL, steps=1)
        train_demo.main(["--output", str(folder), *FEW, f"data.cache={folder / 'cache'}"])
    return folder


def header(path):
    with safe_open(str(path), "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        own = {"pgpis.step", "pgpis.data", DIGEST}   # of the run, not of the kind of file
        return shapes, {key: value for key, value in file.metadata().items() if key not in own}


@pytest.mark.parametrize("stage, shipped", [("autoencoder", "vae"), ("base", "base"), ("cfld", "cfld"), ("mcld", "mcld"),
                                            ("fpdm", "fpdm"), ("qen", "qen")])
def test_every_file_has_the_keys_shapes_and_settings_of_the_shipped_one(made, stage, shipped):
    own = made / f"demo_{stage}" / f"demo_{stage}.safetensors"
    assert header(own) == header(DEMO_FOLDER / f"demo_{shipped}.safetensors")


@pytest.mark.parametrize("stage", ["cfld_lcm", "mcld_lcm", "fpdm_lcm", "qen_lcm"])
def test_a_student_is_a_lora_as_the_shipped_one(made, stage):
    own = made / f"demo_{stage}" / f"demo_{stage}.safetensors"
    assert header(own) == header(DEMO_FOLDER.with_name("loras") / f"demo_{stage}.safetensors")


def test_a_picture_comes_out_of_what_was_made(made):
    folder = made / "demo_qen" / "demo_qen.safetensors", made / "demo_base" / "demo_base.safetensors"
    bank = open_bank(DataConfig(identities=4, workers=0, cache=str(made / "cache")))
    for lora in ("", made / "demo_qen_lcm" / "demo_qen_lcm.safetensors"):
        generator = Generator(*folder, made / "demo_autoencoder" / "demo_autoencoder.safetensors", lora=lora)
        picture = generator(bank.images([0], [0]), bank.poses([0], [1]), steps=2)
        assert picture.shape == (1, 3, 256, 192) and bool(torch.isfinite(picture).all())


def test_what_is_finished_is_not_made_again_and_the_record_names_every_run(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.glob("demo_*/*.safetensors")}
    train_demo.main(["--output", str(made), *FEW, f"data.cache={made / 'cache'}"])
    assert "21 of 21 runs are finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in made.glob("demo_*/*.safetensors")}
    record = json.loads((made / train_demo.RECORD).read_text())
    assert len(record) == 21 and all(row["images"] == 4 and row["seconds"] > 0 for row in record)


def test_a_run_of_other_settings_is_refused_rather_than_taken(made, capsys):
    with pytest.raises(SystemExit):
        train_demo.main(["--output", str(made), "--stages", "reader", *FEW, "lr=0.5", f"data.cache={made / 'cache'}"])
    assert "finished with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [(["--stages", "cfld,paint"], "paint"), (["--scale", "0"], "scale")])
def test_unknown_stages_and_scales_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        train_demo.main(arguments)
    assert message in capsys.readouterr().err


def test_halved_runs_come_first_and_the_full_one_starts_from_them():
    half, full = train_demo.runs_of("cfld", 0.5, "elsewhere", [])
    assert half.config.method.halved and not full.config.method.halved
    assert full.config.method.init == str(half.checkpoint) and half.config.images == full.config.images == 4500
    assert full.config.method.base == "elsewhere/demo_base/demo_base.safetensors"
    assert [run.config.method.halved for run in train_demo.runs_of("cfld", 1, "x", [], full_size=True)] == [False]


@pytest.mark.parametrize("method", ["cfld", "mcld", "fpdm", "qen"])
def test_a_student_learns_from_the_method_of_the_same_set_and_goes_on_from_its_own_lora(method):
    half, full = train_demo.runs_of(f"{method}_lcm", 1, "elsewhere", [])
    assert half.config.method.init == full.config.method.init == f"elsewhere/demo_{method}/demo_{method}.safetensors"
    assert not half.config.distill.lora and full.config.distill.lora == str(half.checkpoint)
    [only] = train_demo.runs_of(f"{method}_lcm", 1, "elsewhere", [], full_size=True)
    assert only.config.method.init == full.config.method.init and not only.config.distill.lora


def test_a_run_that_would_never_reach_its_rate_is_refused(capsys):
    with pytest.raises(SystemExit):
        train_demo.main(["--full-size", "--scale", "4", "batch=128", "warmup_images=12800"])
    said = capsys.readouterr().err
    [whole], [hundredth] = (train_demo.runs_of("cfld", scale, "x", [], full_size=True) for scale in (1, 0.01))
    assert (hundredth.config.images, hundredth.config.warmup_images) == (90, whole.config.warmup_images // 100)
    assert "cfld_lcm: warmup_images is 12800, the run has 7200 images" in said and "train this stage by itself" in said


def test_installing_an_unfinished_set_is_refused_and_copies_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(train_demo, "SHIPPED", tmp_path / "shipped" / "demo")
    with pytest.raises(ValueError, match="train stage autoencoder first"):
        train_demo.install(str(tmp_path))
    for stage in train_demo.STAGES:
        (tmp_path / f"demo_{stage}").mkdir()
        if stage != "qen_lcm":
            (tmp_path / f"demo_{stage}" / f"demo_{stage}.safetensors").write_text(stage)
    with pytest.raises(ValueError, match="train stage qen_lcm first"):
        train_demo.install(str(tmp_path))
    assert not (tmp_path / "shipped").exists()
    (tmp_path / "demo_qen_lcm" / "demo_qen_lcm.safetensors").write_text("qen_lcm")
    copied = train_demo.install(str(tmp_path))
    assert len(copied) == 10 and copied[-1] == tmp_path / "shipped" / "loras" / "demo_qen_lcm.safetensors"
    assert all(path.read_text() in (path.stem.removeprefix("demo_"), "autoencoder") for path in copied)
