"""Running a control network (ControlNet) beside the UNet: which rows it runs on, and when.

Both bindings call `run_control`; what the network itself runs on is theirs (see `control_branch.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .injections import Control
from .sites import SKIP_COUNT

LAST_TIMESTEP = 999   # of the 1000 that Stable Diffusion is trained on; the host's per cent count from it


def running(control: Control, timestep: Tensor) -> Tensor:
    """(R,) bool: whether a control of limited duration runs at these timesteps (R,).

    start and end are shares of the sampling, as the host counts them: timestep (1 - share) * 999. As there, an end of 0 and
    a start of 1 mean never.
    """
    on = torch.full_like(timestep, control.end > 0 and control.start < 1, dtype=torch.bool)
    if control.start > 0:
        on &= timestep <= (1 - control.start) * LAST_TIMESTEP
    if control.end < 1:
        on &= timestep >= (1 - control.end) * LAST_TIMESTEP
    return on


def run_control(control: Control, sample: Tensor, timestep: Tensor,
                rows: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor] | None:
    """Runs a control network on the rows that have it; the others get zero residuals.

    sample (R, 4, H, W), timestep (R,) or scalar, rows as of `Rows.stacked`. Returns 12 skip residuals and the middle one,
    all with R rows; None, without a call, when no row has it. Where gradients are wanted all rows run, and those without it
    are zeroed: to pick them would wait for the device. Raises ValueError when the network gives another number.
    """
    time = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
    on = rows["control_on"].to(sample.device).bool() & running(control, time)
    training = torch.is_grad_enabled()
    if not training and not bool(on.any()):
        return None
    inputs = {name.removeprefix("control."): value for name, value in rows.items() if name.startswith("control.")}
    everywhere = not training and bool(on.all())
    if not everywhere and not training:
        inputs = {name: value[on] for name, value in inputs.items()}
        sample, time = sample[on], time[on]
    skips, middle = control.network(sample, time, **inputs)
    if len(skips) != SKIP_COUNT:
        raise ValueError(f"the control network gave {len(skips)} skip residuals; expected {SKIP_COUNT}")

    def spread(value: Tensor) -> Tensor:
        value = value * control.scale
        if everywhere:
            return value
        if training:
            return value.masked_fill(~on.view(-1, 1, 1, 1), 0)
        full = value.new_zeros(on.shape[0], *value.shape[1:])
        full[on] = value
        return full
    return [spread(value) for value in skips], spread(middle)
