"""The loop that all tasks share: averaging, stopping, measuring, and the learning rate."""

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.helpers.line_task import LineTask, config, same, states
from training.engine.config import TrainConfig
from training.engine.loop import StepBatches, precision, run
from training.engine.rates import learning_rate
from training.engine.shares import WHOLE


@pytest.mark.parametrize(("built", "fast", "expected"), [(True, True, "bf16"), (True, False, "no"), (False, True, "no")])
def test_automatic_precision_on_a_cpu_asks_only_what_torch_was_built_with(monkeypatch, built, fast, expected):
    def supported():
        assert built, "torch without mkldnn has no such operator"
        return fast

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: built)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", supported)
    assert precision(TrainConfig()) == expected
    assert precision(TrainConfig(precision="fp16")) == "fp16"


def test_every_pass_of_an_accumulated_step_has_noise_of_its_own(tmp_path):
    run(config(tmp_path, accumulate=2, images=8), LineTask)
    assert len(set(LineTask.made.model.noises)) == 4


def test_accumulated_passes_make_the_step_of_one_large_pass(tmp_path):
    """Gradients of equal passes average to that of all at once: checked on a task without noise."""
    class Quiet(LineTask):
        def __init__(self, *args):
            super().__init__(*args)
            nn.init.zeros_(self.model.layer.weight)
            self.model.forward = lambda batch: ((self.model.layer(batch["x"]) - batch["y"]).square().mean(), {})

        def batch(self, rng, size):
            x = torch.arange(3.0).repeat(size, 1)
            return {"x": x, "y": x[:, :2]}

        unseen = batch

    ends = [run(config(tmp_path / str(n), accumulate=n, ema=0.0, images=40), Quiet) for n in (1, 4)]
    first, second = (load_file(end)["layer.weight"] for end in ends)
    assert torch.allclose(first, second, atol=1e-6) and first.abs().max() > 0.1


def test_the_average_is_exported_and_the_weights_themselves_are_trained_on(tmp_path):
    """The running average is computed again from the weights after each step."""
    history = []

    class Watched(LineTask):
        def batch(self, rng, size):
            if self.model.training:
                history.append(self.model.layer.weight.detach().clone())
            return super().batch(rng, size)

    path = run(config(tmp_path, images=40, sample_every=0), Watched)
    history.append(LineTask.made.model.layer.weight.detach().clone())
    average = history[0]
    for step, weight in enumerate(history[1:]):
        # diffusers' warm-up of the average: the first step takes the weights as they are
        decay = 0.0 if step == 0 else min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    exported = load_file(path)["layer.weight"]
    assert torch.allclose(exported, average, atol=1e-6)
    assert (exported - history[-1]).abs().max() > 1e-3   # after the export the weights are back
    without = run(config(tmp_path / "without", images=40, ema=0.0), LineTask)
    assert torch.equal(load_file(without)["layer.weight"], LineTask.made.model.layer.weight)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path, log_every):
    settings = config(tmp_path, log_every=log_every)
    with pytest.raises(FloatingPointError, match="finite|became inf.*state-0000000020.*lower lr"):
        run(settings, lambda *args: LineTask(*args, blow_up=7))   # after 24 images
    assert states(tmp_path) == ["state-0000000020"]
    assert not (tmp_path / "line" / "line.safetensors").exists()
    assert all(value.isfinite().all() for value in load_file(run(settings, LineTask)).values())


def test_gradient_checkpointing_of_attention_runs_on_a_cpu(tmp_path):
    """What is computed again in the backward pass must be computed by the same kernel."""
    class Attending(LineTask):
        kept = False

        def __init__(self, *args):
            super().__init__(*args)
            attend, kept = self.attend, self.kept
            self.model.forward = lambda batch: ((attend(batch["x"]) if kept else torch.utils.checkpoint.checkpoint(
                attend, batch["x"], use_reentrant=False)).square().mean(), {})

        def attend(self, x):
            rows = self.model.layer(x)[None, None]   # (1, 1, B, 2)
            return nn.functional.scaled_dot_product_attention(rows, rows, rows)

    class Kept(Attending):
        kept = True

    assert same(run(config(tmp_path / "a", images=12), Attending), run(config(tmp_path / "b", images=12), Kept))


def test_processes_that_do_not_become_one_run_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched, but each would train alone"):
        run(config(tmp_path), LineTask)
    assert not (tmp_path / "line").exists()


def test_frozen_weights_stay_and_pictures_and_curves_are_written(tmp_path):
    path = run(config(tmp_path), LineTask)
    assert torch.equal(load_file(path)["frozen"], torch.ones(2))
    folder = tmp_path / "line"
    assert sorted(p.name for p in (folder / "samples").iterdir()) == ["000000040.png", "000000080.png"]
    assert list(folder.rglob("events.out.tfevents*"))


def test_what_was_trained_on_is_measured_beside_what_was_not(tmp_path, capsys, monkeypatch):
    """By hand from the exported weights: dropout off, the same four batches at any time, their mean in the event file."""
    monkeypatch.setattr("training.engine.measures.BATCHES", 4)   # as outside of tests
    path = run(config(tmp_path, images=400, sample_every=0), LineTask)
    task, seed = LineTask.made, TrainConfig().seed
    task.model.load_state_dict(load_file(path))
    expected = {}
    for kind, batch in (("held_out", task.unseen), ("trained_on", task.batch)):
        losses, noises = [], []
        for number in range(4):
            rows = batch(np.random.default_rng((seed, 0, number)), 4)
            torch.manual_seed(int(np.random.SeedSequence((seed, 0, number)).generate_state(1)[0]))
            noise = 0.1 * torch.randn_like(rows["x"])
            losses.append((task.model.layer(rows["x"] + noise) - rows["y"]).square().mean().item())
            noises.append(noise.mean().item())
        expected |= {f"{kind}/loss": np.mean(losses), f"{kind}/noise": np.mean(noises)}
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents*")).parent))
    events.Reload()
    written = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in expected}
    assert {name: step for name, ((step, _),) in written.items()} == dict.fromkeys(expected, 400)
    assert {name: value for name, ((_, value),) in written.items()} == pytest.approx(expected, rel=1e-5)
    assert expected["held_out/loss"] > 2 * expected["trained_on/loss"]   # another line
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("400 images"))
    assert f"loss {expected['held_out/loss']:.4g} ({expected['trained_on/loss']:.4g})" in line


def test_measuring_changes_nothing_of_the_training(tmp_path):
    often = run(config(tmp_path / "often", sample_every=8), LineTask)
    assert same(often, run(config(tmp_path / "never", sample_every=0), LineTask))


def test_a_checkpoint_is_written_before_anything_is_measured_of_it(tmp_path):
    class Unreadable(LineTask):
        def unseen(self, rng, size):
            raise OSError("cannot read photo")

    with pytest.raises(OSError, match="cannot read photo"):
        run(config(tmp_path / "broken", sample_every=0), Unreadable)
    whole = run(config(tmp_path / "whole", sample_every=0), LineTask)
    assert same(whole, tmp_path / "broken" / "line" / "line.safetensors")


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch 4 does not divide over 1 processes and 3 accumulated.*multiple of 3"):
        run(config(tmp_path, accumulate=3), LineTask)


def test_batches_depend_on_seed_and_number_alone():
    def batch(rng, size):
        return rng.integers(1 << 30, size=size).tolist()

    late = StepBatches(batch, 3, WHOLE, 5, first=6, passes=8)
    assert len(late) == 2 and late[0] == StepBatches(batch, 3, WHOLE, 5, first=0, passes=8)[6]
    several = [StepBatches(batch, seed, WHOLE, 5, 0, 8)[i] for seed in (3, 4) for i in (0, 1)]
    assert len({tuple(values) for values in several}) == 4
    assert len(StepBatches(batch, 3, WHOLE, 5, first=9, passes=8)) == 0


def test_the_linear_schedule_warms_up_holds_and_falls_to_zero():
    settings = TrainConfig(images=1000, batch=10, warmup_images=100, decay_share=0.25)
    rates = [learning_rate(settings, images) for images in range(0, 1000, 10)]
    assert rates[0] == pytest.approx(10 / 110) and rates[5] == pytest.approx(60 / 110)   # a step after n images: n + 10
    assert set(rates[10:76]) == {1.0}
    assert rates[80] == pytest.approx(0.8) and rates[99] == pytest.approx(0.04)
    assert learning_rate(settings, 1000) == 0.0


def test_each_step_uses_the_rate_of_its_moment(tmp_path):
    """On a constant gradient Adam moves every weight by exactly the learning rate."""
    places = []

    class Slope(LineTask):
        def __init__(self, *args):
            super().__init__(*args)
            self.model.forward = lambda batch: (self.model.layer.weight.sum() + self.model.layer.bias.sum(), {})

        def batch(self, rng, size):
            if self.model.training:
                places.append(self.model.layer.weight[0, 0].item())
            return {}

        unseen = batch

    settings = config(tmp_path, images=40, warmup_images=12, decay_share=0.5, clip=0.0, ema=0.0)
    run(settings, Slope)
    moved = -np.diff([*places, LineTask.made.model.layer.weight[0, 0].item()])
    expected = [0.05 * learning_rate(settings, images) for images in range(0, 40, 4)]
    assert moved == pytest.approx(expected, rel=1e-3) and len(set(expected)) > 6


def test_the_authors_schedule_counts_steps():
    settings = TrainConfig(images=100 * 455 * 448, batch=448, schedule="cfld")
    rate = {step: learning_rate(settings, step * 448) for step in (0, 499, 999, 1000, 22_749, 22_750, 45_499)}
    assert rate == pytest.approx({0: 0.1 + 0.9 / 1000, 499: 0.1 + 0.9 * 500 / 1000, 999: 1.0, 1000: 1.0, 22_749: 1.0,
                                  22_750: 0.1, 45_499: 0.1})
