"""The running average of weights, against that of diffusers."""

import copy

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from training.engine.ema import Ema


def a_model(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@torch.no_grad()
def walk(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for value in model.parameters():
        value.add_(torch.randn_like(value))


@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_averages_are_those_of_diffusers(decay):
    model = a_model()
    ours, theirs = Ema(list(model.parameters()), decay), EMAModel(model.parameters(), decay=decay)
    for step in range(100):   # beyond the warm-up, which ends when (1 + n) / (10 + n) reaches the decay
        walk(model, step)
        ours.prepare()
        ours.update()
        theirs.step(model.parameters())
        for mine, other in zip(ours.averages, theirs.shadow_params, strict=True):
            assert torch.allclose(mine, other, atol=1e-5), step
    assert float(1 - ours.gain) == pytest.approx(decay)


def test_within_the_block_the_weights_are_the_average_and_afterwards_their_own():
    model = a_model()
    ema = Ema(list(model.parameters()), 0.9)
    for step in range(3):
        walk(model, step)
        ema.prepare()
        ema.update()
    own, places = copy.deepcopy(model.state_dict()), [value.data_ptr() for value in model.parameters()]
    with ema:
        assert all(torch.equal(value, average) for value, average in zip(model.parameters(), ema.averages, strict=True))
        assert not torch.equal(model[0].weight, own["0.weight"])
        assert [value.data_ptr() for value in model.parameters()] == places   # a graph replays where they lie
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    with pytest.raises(KeyError), ema:
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_a_stored_state_goes_on_as_if_it_had_not_been(tmp_path):
    model, other = a_model(), a_model()
    whole, first = (Ema(list(one.parameters()), 0.9) for one in (model, other))
    for step in range(8):
        for one, ema in ((model, whole), (other, first)):
            walk(one, step)
            ema.prepare()
            ema.update()
        if step == 4:
            torch.save(first.state_dict(), tmp_path / "ema.bin")
            first = Ema(list(other.parameters()), 0.9)   # starts at the weights, as a resumed run does
            places = [value.data_ptr() for value in first.averages]
            first.load_state_dict(torch.load(tmp_path / "ema.bin", weights_only=True))
            assert [value.data_ptr() for value in first.averages] == places
    assert first.steps == whole.steps == 8
    assert all(torch.equal(a, b) for a, b in zip(first.averages, whole.averages, strict=True))
