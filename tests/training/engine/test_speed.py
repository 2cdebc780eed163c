"""What a run says of its speed: the peaks of devices, FLOPs counted in a step, and figures of a clock that is known."""

import pytest
import torch
from torch import nn

from training.engine import speed
from training.engine.speed import Speed, in_words, peak_of


def test_peaks_are_those_of_the_named_device():
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12 and peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12 and peak_of("some other") is None


def test_figures_of_a_known_clock_and_a_known_step(monkeypatch):
    """Two processes on a device of 1e6 FLOP/s; a linear layer of 6 x 5 on 8 images: forward and two backward products."""
    clock = [100.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: clock[0])
    run = Speed(torch.device("cpu"), "no", total=1000, first=200, processes=2)
    assert run.peak is None and "mfu" not in run.figures(200)   # a CPU's peak is not in the table
    run.peak = 1e6
    layer = nn.Linear(6, 5, bias=False)
    for _ in range(2):   # the second is not counted
        with run.counting(8):
            layer(torch.randn(8, 6, requires_grad=True)).sum().backward()
    assert run.work == 3 * 2 * 6 * 5
    clock[0] += 10
    first = run.figures(240)
    clock[0] += 30
    second = run.figures(480)
    assert first["images_per_second"] == 4 and second["images_per_second"] == 8   # since the last look
    assert first["minutes_left"] == pytest.approx(760 / 4 / 60) and second["minutes_left"] == pytest.approx(520 / 7 / 60)
    assert second["mfu"] == pytest.approx(8 * 180 / 2 / 1e6)
    assert 0.05 < second["peak_gib"] < 1000
    assert in_words({"mfu": 0.314, "peak_gib": 12.34, "images_per_second": 3.0}) == {"mfu": "31%", "peak": "12.3GiB"}
