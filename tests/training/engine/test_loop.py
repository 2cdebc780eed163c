"""The loop that all tasks share: resuming, averaging, stopping, and the learning rate."""

import dataclasses
import math
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from training.engine.config import TrainConfig
from training.engine.loop import StepBatches, precision, run
from training.engine.rates import learning_rate
from training.engine.shares import WHOLE


class Interrupted(Exception):
    pass


class Line(nn.Module):
    """Fits a line, with noise from torch's generator and dropout, as real tasks have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.noises = []

    def forward(self, batch):
        noise = 0.1 * torch.randn_like(batch["x"])
        if self.training:
            self.noises.append(noise.flatten()[0].item())
        error = self.layer(nn.functional.dropout(batch["x"] + noise, 0.2, self.training)) - batch["y"]
        return error.square().mean() * batch["scale"], {"noise": noise.mean()}


class LineTask:
    """stop_at: number of the training batch at which a run breaks off; blow_up: from which on the loss is infinite."""

    loader_workers = 0
    made: "LineTask"

    def __init__(self, config, device, stop_at=math.inf, blow_up=math.inf):
        self.model, self.stop_at, self.blow_up, self.batches = Line().to(device), stop_at, blow_up, 0
        self.during_export = None
        LineTask.made = self

    def groups(self, lr):
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def batch(self, rng, size):
        self.batches += self.model.training   # what is drawn to be measured does not count
        if self.batches >= self.stop_at:
            raise Interrupted
        x = torch.from_numpy(rng.standard_normal((size, 3))).float()
        scale = torch.tensor(math.inf if self.batches >= self.blow_up else 1.0)
        return {"x": x, "y": x[:, :2] * 2 + 1, "scale": scale}

    def unseen(self, rng, size):
        x = torch.from_numpy(rng.standard_normal((size, 3))).float()
        return {"x": x, "y": -x[:, :2], "scale": torch.tensor(1.0)}

    def grid(self):
        assert not self.model.training
        return np.zeros((4, 4, 3), np.uint8)

    def export(self, path: Path, images):
        save_file({k: v.detach().clone() for k, v in self.model.state_dict().items()}, path, {"images": str(images)})


def config(folder, **changes):
    settings = {"name": "line", "output": str(folder), "images": 80, "batch": 4, "lr": 0.05, "warmup_images": 8, "ema": 0.9,
                "precision": "no", "sample_every": 40, "save_every": 20, "log_every": 3}
    return TrainConfig(**(settings | changes))


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


def states(folder):
    return sorted(p.name for p in (folder / "line").glob("state-*"))


def same(first, second):
    first, second = load_file(first), load_file(second)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_interrupted_and_resumed_ends_bit_for_bit_as_one_that_was_not(tmp_path, accumulate):
    whole = run(config(tmp_path / "whole", accumulate=accumulate), LineTask)
    broken = config(tmp_path / "broken", accumulate=accumulate)
    with pytest.raises(Interrupted):
        run(broken, lambda *args: LineTask(*args, stop_at=12 * accumulate))  # in the 12th step: after the state at 40 images
    assert states(tmp_path / "broken")[-1] == "state-0000000040"
    resumed = run(broken, LineTask)
    assert LineTask.made.batches == 10 * accumulate  # half of the run, not all of it
    assert same(whole, resumed)
    other = run(config(tmp_path / "other", accumulate=accumulate, seed=1), LineTask)
    assert not same(whole, other)


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


def test_half_written_states_are_neither_resumed_nor_kept(tmp_path):
    with pytest.raises(Interrupted):
        run(config(tmp_path), lambda *args: LineTask(*args, stop_at=8))
    part = tmp_path / "line" / "state-0000000999.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")
    path = run(config(tmp_path), LineTask)
    assert same(path, run(config(tmp_path / "whole"), LineTask))
    assert states(tmp_path) == ["state-0000000060", "state-0000000080"]


def test_resume_false_starts_afresh_and_replaces_the_states(tmp_path):
    first = run(config(tmp_path, seed=5), LineTask)
    fresh = run(config(tmp_path, images=40, resume=False), LineTask)
    assert LineTask.made.batches == 10
    assert states(tmp_path) == ["state-0000000020", "state-0000000040"]
    assert same(fresh, run(config(tmp_path / "whole", images=40), LineTask)) and first == fresh


def test_a_finished_run_is_exported_again_without_training(tmp_path):
    settings = config(tmp_path)
    weights = load_file(run(settings, LineTask))
    again = load_file(run(settings, LineTask))
    assert LineTask.made.batches == 0 and all(torch.equal(weights[key], again[key]) for key in weights)


def test_what_is_learned_may_not_change_when_a_run_goes_on(tmp_path, capsys):
    with pytest.raises(Interrupted):
        run(config(tmp_path), lambda *args: LineTask(*args, stop_at=12))
    data = dataclasses.replace(TrainConfig().data, workers=0, cache="elsewhere")
    for name, value, said in (("lr", 0.1, "lr: 0.05 -> 0.1"), ("images", 120, "images: 80 -> 120"), ("ema", 0.0, "ema: 0.9"),
                              ("seed", 5, "seed: 3407 -> 5"), ("world", {"x": 1}, "world.x: null -> 1"),
                              ("data", dataclasses.replace(data, root="x"), 'data.root: "" -> "x"'),
                              ("betas", (0.5, 0.9), "betas: [0.9, 0.99] -> [0.5, 0.9]")):
        with pytest.raises(ValueError, match=re.escape(said)) as error:
            run(config(tmp_path, **{name: value}), LineTask)
        assert "state-0000000040" in str(error.value) and "resume_changed=true" in str(error.value)
    path = run(config(tmp_path, sample_every=0, log_every=1, save_minutes=0, data=data,
                      export=str(tmp_path / "a.safetensors")), LineTask)
    assert same(path, run(config(tmp_path / "whole"), LineTask)) and path == tmp_path / "a.safetensors"
    capsys.readouterr()
    changed = run(config(tmp_path, images=120, resume_changed=True), LineTask)
    assert "images: 80 -> 120" in capsys.readouterr().out and LineTask.made.batches == 10 and not same(changed, path)
    for state in (tmp_path / "line").glob("state-*"):   # of an earlier version, which kept no settings
        (state / "config.json").unlink()
    run(config(tmp_path, lr=0.1, images=124), LineTask)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_machine_that_is_taken_away_costs_no_step(tmp_path, number):
    class Taken(LineTask):
        def batch(self, rng, size):
            if self.model.training and self.batches == 6:   # in the seventh step: away from any state
                os.kill(os.getpid(), number)
            return super().batch(rng, size)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit, match=f"{number.name}: stopped after 28 images, whose state is saved below"):
        run(config(tmp_path / "taken"), Taken)
    assert states(tmp_path / "taken")[-1] == "state-0000000028" and signal.getsignal(number) == before
    resumed = run(config(tmp_path / "taken"), LineTask)
    assert LineTask.made.batches == 13 and same(resumed, run(config(tmp_path / "whole"), LineTask))


def test_states_are_saved_by_the_clock_too(tmp_path, monkeypatch):
    """A clock that goes 50 seconds per step of 4 images: with one minute every second step is saved."""
    class Slow(LineTask):
        def batch(self, rng, size):
            if self.model.training:
                clock[0] += 50
            return super().batch(rng, size)

    clock, saved = [0.0], []
    monkeypatch.setattr("training.engine.loop.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("training.engine.loop.States.save", lambda self, images: saved.append(images))
    run(config(tmp_path / "a", images=40, save_every=0, save_minutes=1.0, sample_every=0, log_every=100), Slow)
    assert saved == [8, 16, 24, 32, 40, 40]
    saved.clear()
    run(config(tmp_path / "b", images=40, save_every=20, save_minutes=0.0, sample_every=0, log_every=100), Slow)
    assert saved == [20, 40, 40]


def test_curves_of_a_resumed_run_have_each_step_once(tmp_path):
    broken = config(tmp_path, log_every=1)
    with pytest.raises(Interrupted):
        run(broken, lambda *args: LineTask(*args, stop_at=14))   # 52 images are logged, the state is of 40
    run(broken, LineTask)
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents*")).parent))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(4, 84, 4))


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
