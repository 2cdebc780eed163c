"""FPDM's first training stage: what it changes, what its loss is, which pairs it sees, and what it shows."""

import numpy as np
import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint
from tests.helpers.fpdm_tiny import train_config
from tests.helpers.steps import changed, trained, weights
from training.tasks.fpdm_fusion import FusionTask

CPU = torch.device("cpu")


def test_stage_1_trains_everything_and_its_loss_falls(folder, files):
    torch.manual_seed(0)
    task = FusionTask(train_config(folder, files, "fpdm_fusion"), CPU)
    before = weights(task.model)
    losses = trained(task, 12, 3e-3)
    assert changed(task.model, before) == set(before)
    assert losses[-1] < 0.7 * losses[0]


def test_stage_1_loss_is_that_of_three_separate_readings(folder, files):
    task = FusionTask(train_config(folder, files, "fpdm_fusion"), CPU)
    model, method = task.model.eval(), task.model.method
    batch = task.batch(np.random.default_rng(1), 4)
    loss, logs = model(batch)
    s, p, t = (method.embed(batch[name]).detach().double() for name in ("source", "pose", "target"))
    f = method.combiner(s.float(), p.float()).detach().double()
    rows, columns = (torch.nn.functional.normalize(torch.cat(pair), dim=1) for pair in ((t, s), (f, s)))
    logits = rows @ columns.T / 0.07
    expected = -torch.log_softmax(logits, 1).diagonal().mean() + 1e-4 * (s - f).abs().sum() / (2 * s.numel())
    assert abs(loss.item() - expected.item()) < 1e-5
    assert {"top1", "top5", "rank", "l1"} == logs.keys()
    rank = (logits > logits.diagonal()[:, None]).sum(1).double().mean() + 1
    assert abs(logs["rank"].item() - rank.item()) < 1e-6


@pytest.mark.parametrize("gather", [True, False])
def test_the_candidates_of_other_processes_count_where_asked(folder, files, monkeypatch, gather):
    """Another process's fusions and sources join the candidates, after ours."""
    others = iter(torch.randn(2, 4, 24, generator=torch.Generator().manual_seed(5)).unbind())
    joined = []

    def gathered(rows):
        joined.append(torch.cat([rows, next(others)]))
        return joined[-1], 0

    monkeypatch.setattr("training.tasks.fpdm_fusion.gather_rows", gathered)
    task = FusionTask(train_config(folder, files, "fpdm_fusion", fpdm={"gather": gather, "l1_weight": 0.0}), CPU)
    batch = task.batch(np.random.default_rng(1), 4)
    with torch.no_grad():
        loss, _ = task.model.eval()(batch)
        s, p, t = (task.model.method.embed(batch[name]) for name in ("source", "pose", "target"))
        fusions, sources = joined if gather else (task.model.method.combiner(s, p), s)
    assert len(joined) == 2 * gather
    rows, columns = (torch.nn.functional.normalize(torch.cat(pair).double(), dim=1) for pair in ((t, s), (fusions, sources)))
    own = torch.cat([torch.arange(4), len(fusions) + torch.arange(4)])
    expected = -torch.log_softmax(rows @ columns.T / 0.07, 1)[torch.arange(8), own].mean()
    assert abs(loss - expected) < 1e-4


def test_stage_1_batches_show_a_person_in_several_targets(folder, files):
    task = FusionTask(train_config(folder, files, "fpdm_fusion", fpdm={"pairs_per_person": 2}), CPU)
    pairs = task.pictures.draw(np.random.default_rng(0), 8, 2)
    people = [pair.where[0] for pair in pairs]
    assert len(set(people)) == 4 and all(people[n] == people[n + 1] for n in range(0, 8, 2))
    assert all(pair.where[1] != pair.where[2] for pair in pairs)
    assert all(pairs[n].where[2] != pairs[n + 1].where[2] for n in range(0, 8, 2))
    with pytest.raises(ValueError, match="a batch of 3 for a process and pass .*leaves nobody to tell apart"):
        task.batch(np.random.default_rng(0), 3)   # what 16 processes would get of a batch of 48


def test_dropped_inputs_are_zero(folder, files):
    task = FusionTask(train_config(folder, files, "fpdm_fusion", fpdm={"input_drop": 0.5}), CPU)
    batch = task.batch(np.random.default_rng(0), 6)
    for name in ("source", "pose"):
        zero = [not row.any() for row in batch[name]]
        assert 0 < sum(zero) < 6, name
    assert all(row.any() for row in batch["target"])


def test_stage_1_shows_what_it_finds_and_its_file_is_what_was_trained(fusion, folder, files):
    loaded = load_checkpoint(fusion, expect_method="fpdm_fusion")
    assert loaded.meta.base == "demo" and loaded.meta.step == 8
    task = FusionTask(train_config(folder, files, "fpdm_fusion", method={"init": fusion}), CPU)
    state = loaded.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in task.model.method.state_dict().items())
    task.model.eval()
    with torch.no_grad():
        picture = task.grid()
    assert picture.dtype == np.uint8 and picture.std() > 10
