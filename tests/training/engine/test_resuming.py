"""A run that goes on from its states ends as one that was never stopped, and says where it would not."""

import dataclasses
import json
import os
import re
import signal

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.line_task import Interrupted, LineTask, config, same, states
from training.engine.config import TrainConfig
from training.engine.loop import run


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


def test_what_a_state_of_an_earlier_version_does_not_say_has_its_default(tmp_path):
    with pytest.raises(Interrupted):
        run(config(tmp_path), lambda *args: LineTask(*args, stop_at=12))
    for state in (tmp_path / "line").glob("state-*/config.json"):
        before = json.loads(state.read_text())
        del before["data"]["turned"]
        before["gone"] = 5
        state.write_text(json.dumps(before))
    turned = dataclasses.replace(TrainConfig().data, turned=(120.0, 180.0))
    with pytest.raises(ValueError, match=re.escape("data.turned: [] -> [120.0, 180.0]")):
        run(config(tmp_path, data=turned), LineTask)
    assert same(run(config(tmp_path), LineTask), run(config(tmp_path / "whole"), LineTask))
