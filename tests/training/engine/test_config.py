"""Configs: what is written is what is meant, and a typo is an error that says how it is spelled."""

import dataclasses
import typing
from pathlib import Path

import pytest
import yaml

from pgpis_models.cfld.config import CFLDConfig
from pgpis_models.settings import build
from training.engine.config import TrainConfig, as_json, load_config
from training.train import main, task_class

CONFIGS = Path(__file__).resolve().parents[3] / "training" / "configs"
SHIPPED = sorted(CONFIGS.glob("*/*.yaml"))


@pytest.fixture
def page(tmp_path):
    """Writes a YAML page and returns its path."""
    def write(text):
        path = tmp_path / "page.yaml"
        path.write_text(text)
        return path
    return write


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_shipped_config_loads_and_says_what_its_page_says(path):
    config = load_config(path)
    page = yaml.safe_load(path.read_text())

    def check(node, values):
        for name, value in values.items():
            own = getattr(node, name)
            if isinstance(value, dict) and dataclasses.is_dataclass(own):
                check(own, value)
            else:
                assert own == (tuple(value) if isinstance(value, list) else value), name

    check(config, page)
    assert task_class(config.task)
    assert config.batch % (2 if config.method.reconstruct else 1) == 0


def test_no_run_replaces_what_is_shipped_or_what_another_run_made():
    configs = [load_config(path) for path in SHIPPED]
    made = {config.export or f"{config.output}/{config.name}/{config.name}.safetensors" for config in configs}
    assert len(made) == len({config.name for config in configs}) == len(configs) >= 13
    for path, config in zip(SHIPPED, configs, strict=True):
        assert not config.export.startswith(("models/demo", "models/loras")), path
        assert path.parent.name != "photos" or not config.export, path   # a run for each data set, under its own name
        starts = (config.method.init, config.method.backbone, config.method.base, config.method.vae, config.fpdm.fusion)
        for start in starts:   # made where the next run looks for it
            assert not start.startswith("output/") or start in made, (path, start)


def test_the_full_size_config_is_the_authors(page):
    config = load_config(CONFIGS / "deepfashion" / "cfld.yaml")
    steps = 100 * (101_966 // 224)
    assert config.batch == 2 * 224 and config.images == steps * config.batch
    assert (config.lr, config.betas, config.weight_decay, config.clip, config.ema) == (1e-4, (0.9, 0.999), 0.0, 0.0, 0.0)
    assert config.data.flip and config.data.size == (512, 512) and config.precision == "fp16" and config.checkpointing
    assert config.save_every == 5 * 455 * config.batch


@pytest.mark.parametrize("row, mask", [("b1", "none"), ("b2", "simple")])
def test_the_rows_of_qens_table_differ_from_the_whole_method_in_queries_and_mask_alone(row, mask):
    whole, config = (load_config(CONFIGS / "deepfashion" / f"{name}.yaml") for name in ("qen", f"qen_{row}"))
    assert config.method.model == {"local_queries": 80, "global_queries": 0, "mask": mask} and whole.method.model == {}
    method = dataclasses.replace(config.method, model={})
    same = dataclasses.replace(config, name=whole.name, export=whole.export, method=method)
    assert same == whole


@pytest.mark.parametrize("override, message", [
    ("imags=3", r"unknown setting 'imags'; did you mean 'images'\?"),
    ("data.identity=3", r"unknown setting 'data.identity'; did you mean 'data.identities'\?"),
    ("method.basis=x", r"unknown setting 'method.basis'; did you mean 'method.base'\?"),
    ("images=many", "images is 'many' .str.; expected int"),
    ("images=1.5", "images is 1.5 .float.; expected int"),
    ("batch=true", "batch is True .bool.; expected int"),
    ("lr=fast", "lr is 'fast'; expected a number"),
    ("resume=1", "resume is 1 .int.; expected bool"),
    ("name=3", "name is 3 .int.; expected str"),
    ("data.size=128", "data.size is 128; expected a list"),
    ("data.size=[1,2,3]", r"data.size has 3 values \[1, 2, 3\]; expected 2"),
    ("data.size=[a,b]", "data.size is 'a' .str.; expected int"),
    ("data=5", "data is 5; expected settings by name"),
    ("method.model=5", "method.model is 5; expected settings by name"),
    ("images", "override 'images' is not key=value"),
    ("images.few=3", "override 'images.few=3': images is not a group of settings"),
    ("data.size=[1,", "cannot be read as YAML"),
    ("schedule=cosine", "schedule is 'cosine'; expected one of linear, cfld"),
    ("precision=fp8", "precision is 'fp8'; expected one of auto, no, bf16, fp16"),
    ("batch=0", "batch is 0; expected 1 or more"),
    ("images=0", "images is 0; expected 1 or more"),
    ("lr=0", "lr is 0.0; expected more than 0"),
    ("lr=-1e-4", "lr is -0.0001; expected more than 0"),
    ("lr=.nan", "lr is nan; expected more than 0"),
    ("lr=.inf", "lr is inf; expected more than 0"),
    ("ema=1", "ema is 1.0; expected 0 or more, and less than 1"),
    ("ema=-0.1", "ema is -0.1; expected 0 or more, and less than 1"),
    ("clip=-1", "clip is -1.0; expected 0 or more"),
    ("warmup_images=-1", "warmup_images is -1; expected 0 or more"),
    ("decay_share=1.5", "decay_share is 1.5; expected 0 to 1"),
    ("betas=[0.9, 1]", r"betas is \[0.9, 1.0\]; expected 0 or more, and less than 1 of every value"),
    ("log_every=-5", "log_every is -5; expected 1 or more"),
    ("sample_every=-5", "sample_every is -5; expected 0 or more"),
    ("save_every=-5", "save_every is -5; expected 0 or more"),
    ("data.size=[0, 96]", r"data.size is \[0, 96\]; expected 1 or more of every value"),
    ("data.workers=-1", "data.workers is -1; expected 0 or more"),
    ("fpdm.temperature=0", "fpdm.temperature is 0.0; expected more than 0"),
    ("mcld.uncond_drop=1.2", "mcld.uncond_drop is 1.2; expected 0 to 1"),
])
def test_wrong_settings_are_refused_by_name(page, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(page("images: 100\n"), [override])


def test_every_number_of_a_run_has_a_range():
    def without(kind, where=""):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            type_ = hints[field.name]
            if dataclasses.is_dataclass(type_):
                yield from without(type_, f"{where}{field.name}.")
            elif {type_, *typing.get_args(type_)} & {int, float} and "fits" not in field.metadata:
                yield where + field.name
    assert list(without(TrainConfig)) == []


def test_overrides_win_and_keep_their_types(page):
    path = page("images: 100\nlr: 1e-4\ndata: {size: [64, 48], flip: true}\n")
    plain = load_config(path)
    assert plain.lr == 1e-4 and plain.data.size == (64, 48)
    config = load_config(path, ["images=7", "data.size=[256,192]", "lr=3e-5", "method.model.swin_width=8", "data.root=a=b",
                                "world.block_out_channels=[32,64]", "clip=1"])
    assert (config.images, config.data.size, config.lr, config.data.root) == (7, (256, 192), 3e-5, "a=b")
    assert config.data.flip and config.method.model == {"swin_width": 8}
    assert config.world == {"block_out_channels": [32, 64]} and config.clip == 1.0 and isinstance(config.clip, float)
    assert load_config(page("")) == TrainConfig()


def test_broken_and_missing_pages_are_refused(page, tmp_path):
    with pytest.raises(ValueError, match="no config file .*nowhere.yaml; those shipped are in training/configs"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="page.yaml cannot be read as YAML"):
        load_config(page("a: [1, 2"))
    with pytest.raises(ValueError, match=r"the config is \['images'\]; expected settings by name"):
        load_config(page("- images\n"))
    with pytest.raises(ValueError, match="is not a group"):
        load_config(page("- images\n"), ["images=3"])


def test_a_method_config_is_checked_the_same_way():
    with pytest.raises(ValueError, match="unknown setting 'method.model.swin_with'; did you mean 'method.model.swin_width'"):
        build(CFLDConfig, {"swin_with": 8}, "method.model")
    assert build(CFLDConfig, {"window": [8, 6], "image_size": [64, 32]}, "").window == (8, 6)


def test_the_json_of_a_config_names_everything():
    assert as_json(TrainConfig()) == as_json(TrainConfig()) != as_json(TrainConfig(seed=1))
    assert '"cache_latents": false' in as_json(TrainConfig())


def test_the_command_refuses_with_a_message_instead_of_a_traceback(page, capsys):
    for arguments, message in ((["--config", str(page("task: juggle\n"))], "unknown task 'juggle'; expected one of"),
                               (["--config", "nowhere.yaml"], "no config file nowhere.yaml"),
                               (["imges=3"], "did you mean 'images'")):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_an_empty_value_stands_for_none_where_there_is_a_none(page):
    path = page("method:\n  init: a.safetensors\n  backbone: b.pth\ndata: {root: somewhere}\n")
    config = load_config(path, ["method.init=", "method.backbone= ", "data.root=", "export="])
    assert (config.method.init, config.method.backbone, config.data.root, config.export) == ("", "", "", "")
    for name in ("lr", "images", "ema", "resume", "betas", "data.size", "precision", "method.model", "data"):
        with pytest.raises(ValueError, match=f"^{name} is .*{name} was given without a value"):
            load_config(path, [f"{name}="])


def test_the_export_of_a_page_belongs_to_its_name(page):
    path = page("name: one\nexport: models/one.safetensors\n")
    assert load_config(path).export == load_config(path, ["lr=1"]).export == "models/one.safetensors"
    assert load_config(path, ["name=two"]).export == ""   # output/train/two/two.safetensors
    assert load_config(path, ["name=two", "export=three.safetensors"]).export == "three.safetensors"
