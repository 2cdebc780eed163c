"""A run on several processes is that of one: the same rows of the same batches, and the same noise on them."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.helpers.configs import METHODS, config_of
from tests.helpers.fpdm_tiny import train_config as fpdm_config
from tests.helpers.torchrun_line import train
from training.engine.shares import WHOLE, GlobalDraws, Share, rows_of
from training.tasks.fpdm_fusion import FusionTask
from training.train import task_class

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")


@given(st.integers(0, 5), st.integers(1, 6))
@settings(max_examples=30)
def test_shares_are_all_rows_once(each, count):
    rows = list(range(each * count))
    assert [row for index in range(count) for row in Share(index, count).of(rows)] == rows and WHOLE.of(rows) == rows


DRAWS = {"randn": lambda n: torch.randn(n, 3), "list": lambda n: torch.randn([n, 2]), "rand": lambda n: torch.rand(n),
         "size": lambda n: torch.rand(size=(n, 2)), "randint": lambda n: torch.randint(1000, (n,)),
         "two": lambda n: torch.randint(5, 9, (n, 3)), "like": lambda n: torch.randn_like(torch.zeros(n, 2)),
         "half": lambda n: torch.rand_like(torch.zeros(n), dtype=torch.float16),
         "mask": lambda n: torch.zeros(n, 1, 1).bernoulli_(0.5), "normal": lambda n: torch.empty(n, 2).normal_(1, 3),
         "dropout": lambda n: F.dropout(torch.ones(n, 5), 0.3), "module": lambda n: torch.nn.Dropout(0.5)(torch.ones(n, 2)),
         "path": lambda n: torch.ones(n, 2).new_empty(n, 1).bernoulli_(0.7)}


few = st.integers(1, 4)


@given(st.lists(st.sampled_from(list(DRAWS)), min_size=1, max_size=5), few, few, few, st.integers(0, 2 ** 31))
@settings(max_examples=200)
def test_numbers_drawn_by_all_processes_are_those_of_one(names, groups, rows, count, seed):
    """Row by row, for sizes of `groups` times the rows, as where sources stand before targets."""
    torch.manual_seed(seed)
    whole = [DRAWS[name](groups * rows * count) for name in names]
    end = torch.rand(())
    shared = []
    for index in range(count):
        torch.manual_seed(seed)
        with GlobalDraws(Share(index, count), rows):
            shared.append([DRAWS[name](groups * rows) for name in names])
            assert torch.equal(torch.rand(()), end)   # the generators stand where that of one process does
    for number, expected in enumerate(whole):
        parts = torch.stack([one[number].unflatten(0, (groups, rows)) for one in shared], 1)
        assert torch.equal(parts.flatten(0, 2), expected) and parts.dtype == expected.dtype


def parts_of(task, count: int = 2, size: int = 8) -> tuple[dict, list[dict]]:
    """A batch, and the shares of it that so many processes make."""
    rng = partial(np.random.default_rng, 5)
    return task.batch(rng(), size), [task.batch(rng(), size, Share(index, count)) for index in range(count)]


def check_rows(whole, parts):
    """That the parts are the rows of the whole."""
    assert all(part.keys() == whole.keys() for part in parts)
    for name, value in whole.items():
        full = value.full() if hasattr(value, "full") else value
        found = [part[name].full() if hasattr(part[name], "full") else part[name] for part in parts]
        assert torch.equal(torch.cat(found), full), name


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_two_shares_average_to_those_of_the_whole(name, folder, files, fusion):
    changes = {"fpdm": {"identity": 0.5, "joint_noise": 1.0, "low_share": 0.5}} if name == "fpdm" else {}
    task = task_class(name)(config_of(name, folder, files, fusion, **changes), CPU)
    whole, parts = parts_of(task, size=8 if task.config.method.reconstruct and name in ("cfld", "qen") else 4)
    check_rows(whole, parts)
    task.model.train()
    found = []
    for batch, context in ((whole, None), *((part, Share(n, 2)) for n, part in enumerate(parts))):
        task.model.zero_grad()
        torch.manual_seed(3)
        if context is None:
            task.model(batch)[0].backward()
        else:
            with GlobalDraws(context, rows_of(batch)):
                task.model(batch)[0].backward()
        found.append({key: value.grad.clone() for key, value in task.model.named_parameters() if value.grad is not None})
    whole, first, second = (torch.cat([value.flatten().double() for value in one.values()]) for one in found)
    # Sums in float32 round otherwise in another batch, and so do MCLD's features, in half precision (5e-4 each). Noise of
    # other rows, or the same in both shares, is off by as much as the gradient.
    near = 5e-3 if name == "mcld" else 1e-3
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert float(((first + second) / 2 - whole).norm()) < near * float(whole.norm())
    assert float((first - second).norm()) > 0.1 * float(whole.norm())


def test_batches_of_the_other_tasks_divide_into_rows(folder, files):
    check_rows(*parts_of(FusionTask(fpdm_config(folder, files, "fpdm_fusion", fpdm={
        "pairs_per_person": 2, "input_drop": 0.5}), CPU)))
    with pytest.raises(ValueError, match="a batch of 2 for a process"):
        parts_of(FusionTask(fpdm_config(folder, files, "fpdm_fusion", fpdm={"pairs_per_person": 2}), CPU), 4)


def test_two_processes_on_a_cpu_follow_one(tmp_path):
    """With dropout, noise, an average of the weights, accumulated passes, and a state in the middle."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
                           "tests.helpers.torchrun_line", str(tmp_path / "two")], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = load_file(tmp_path / "two" / "line" / "line.safetensors"), load_file(train(tmp_path / "one"))
    assert len(list((tmp_path / "two").rglob("state-*"))) == 2, "one run, not two in one folder"
    assert all((two[key] - value).abs().max() < 1e-5 for key, value in one.items())
    assert (one["layer.weight"] - 2 * torch.eye(2, 3)).abs().max() < 1, "it has learned something"
