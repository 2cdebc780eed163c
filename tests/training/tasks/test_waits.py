"""No training step makes a GPU wait: nothing is read back, selected by a mask, made on the host or copied from it.

Steps run on the device "meta", which computes nothing and, unlike the CPU, takes the paths of a GPU.
"""

import contextlib

import numpy as np
import pytest
import torch

from pgpis_models.mcld.reference import ReferenceWriter
from tests.helpers.configs import METHODS, config_of
from tests.helpers.fpdm_tiny import tower_file
from tests.helpers.fpdm_tiny import train_config as fpdm_config
from tests.helpers.tiny import train_config
from tests.helpers.waits import Waits
from training.engine.ema import Ema
from training.tasks.distill import DistillTask
from training.tasks.fpdm_fusion import FusionTask
from training.tasks.mcld import freeze_unused
from training.train import task_class

CPU = torch.device("cpu")


def moved(task):
    """The model in training mode without its numbers, and what encodes pictures for it."""
    model = task.model.train().to("meta")
    if hasattr(task, "vae"):
        task.vae.to("meta")
    if hasattr(model, "reference"):   # elsewhere a move keeps the parameters, which both share
        model.reference = ReferenceWriter(model.method.reference())
        freeze_unused(model.method, model.focal.train_reference)
    return model


def found(model, batch):
    """What a second step waits for: in the first, schedules are copied once for all."""
    batch = {name: value.to("meta") for name, value in batch.items()}
    model(batch)   # with gradients: without them the control branch asks whether it has anything to do
    with Waits("meta") as waits:
        loss, logs = model(batch)
        loss.backward()
    assert all(value.device.type == "meta" for value in logs.values())
    grads = [value.grad is not None for value in model.parameters() if value.requires_grad]
    assert sum(grads) > 0.9 * len(grads)
    return waits.found


DROPS = {"prompt_drop": 0.5, "pose_drop": 0.5}
VARIANTS = {
    "cfld": [{}, {"method": {"reconstruct": False, "cubic_timesteps": False}}],
    "mcld": [{}, {"mcld": {"drop": "pixels"}}, {"mcld": {"train_reference": False, "snr_gamma": 0.0}}],
    "fpdm": [{}, {"fpdm": {"per_sample_drops": True, "freeze_source": True}}],
    "qen": [{"model": DROPS}, {"model": DROPS | {"mask": "simple"}, "method": {"reconstruct": False}},
            {"model": {"pose_embedding": "convolutions", "pose_channels": 3, "pose_unshuffle": 8,
                       "pose_widths": [4, 4, 8, 8]}}],
}


@pytest.mark.parametrize(("name", "number"), [(name, n) for name in METHODS for n in range(len(VARIANTS[name]))])
def test_a_step_waits_for_nothing(name, number, folder, files, fusion):
    changes = VARIANTS[name][number]
    if "freeze_source" in changes.get("fpdm", {}):   # a tower that is not trained needs a start
        changes = changes | {"method": {"backbone": tower_file(folder)}}
    task = task_class(name)(config_of(name, folder, files, fusion, **changes), CPU)
    batch = task.batch(np.random.default_rng(0), 4)
    assert found(moved(task), batch) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_pictures_that_are_halved_and_encoded_waits_for_nothing(name, folder, files, fusion):
    """As photos come: without latents."""
    task = task_class(name)(config_of(name, folder, files, fusion, method={"halved": True}), CPU)
    batch = {key: value for key, value in task.batch(np.random.default_rng(0), 4).items() if not key.endswith("_latents")}
    picture = torch.zeros(len(batch["source"]), 3, *task.config.data.size)
    assert found(moved(task), batch | {"source_image": picture, "target_image": picture}) == []


def test_a_step_of_fpdms_first_stage_waits_for_nothing(folder, files, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())   # which does not know "meta"
    task = FusionTask(fpdm_config(folder, files, "fpdm_fusion"), CPU)
    batch = task.batch(np.random.default_rng(0), 4)
    assert found(moved(task), batch) == []


def test_a_step_of_distilling_waits_for_nothing(folder, files):
    """With a target that follows and a guidance weight from a range."""
    settings = {"method": "cfld", "rank": 2, "target_ema": 0.95, "weights": {"pose": 1.0, "appearance": [1.0, 3.0]}}
    config = train_config(folder, files, task="distill", method={"init": str(files.cfld)}, distill=settings)
    task = DistillTask(config, CPU)
    task.teacher.vae.to("meta")
    batch = task.batch(np.random.default_rng(0), 4)
    assert found(moved(task), batch) == []


def test_averaging_the_weights_waits_for_nothing():
    ema = Ema([torch.nn.Parameter(torch.zeros(3, device="meta"))], 0.9)
    with Waits("meta") as waits:
        for _ in range(3):
            ema.prepare()
            ema.update()
    assert waits.found == []


# --- that such things are seen ------------------------------------------------------------------------------

@pytest.mark.parametrize(("wait", "seen"), [
    (lambda x: float(x.sum()), "_local_scalar_dense"), (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
    (lambda x: x[0].item(), "_local_scalar_dense"), (lambda x: x[x > 0], "aten::index"),
    (lambda x: x.__setitem__(x > 0, torch.zeros(())), "aten::"), (lambda x: x.nonzero(), "aten::nonzero"),
    (lambda x: torch.tensor([1.0, 2.0]) * x[:2], "aten::lift_fresh"),
    (lambda x: x.new_tensor([1.0, 2.0]), "aten::lift_fresh"), (lambda x: x.masked_select(x > 0), "aten::masked_select")])
def test_what_waits_is_seen(wait, seen):
    with Waits("cpu") as waits:
        wait(torch.randn(8))
    assert any(seen in line and "test_waits.py" in line for line in waits.found), waits.found


def test_copies_from_the_host_are_seen():
    constant, on_device = torch.ones(3), torch.ones(3, device="meta")
    with Waits("meta") as waits:
        made = constant.to("meta") + on_device
        made.mul_(torch.ones(())).masked_fill_(made > 0, 0).index_select(0, torch.zeros(2, dtype=torch.long, device="meta"))
    assert len(waits.found) == 1 and "_to_copy" in waits.found[0]


def test_what_is_backward_is_seen_too():
    class Asks(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * float(gradient.sum())
    value = torch.ones(3, requires_grad=True)
    with Waits("cpu") as waits:
        Asks.apply(value).sum().backward()
    assert any("_local_scalar_dense" in line for line in waits.found)


def test_constants_are_seen_on_a_device_that_computes_nothing():
    given = torch.ones(3, device="meta")
    with Waits("meta") as waits:
        torch.as_tensor(given, device="meta")
        torch.full((3,), 7, device="meta")
        assert waits.found == []
        torch.tensor([0], device="meta")
        given.new_tensor([1.0])
    assert len(waits.found) == 2 and all("test_waits.py" in line for line in waits.found)
