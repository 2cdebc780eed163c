"""Numbers that are not numbers, looked for once per generation: what goes into a run, and what comes out of it."""

from __future__ import annotations

from torch import Tensor, nn

LISTED = 5   # weights that are named


def check_inputs(**tensors: Tensor | None) -> None:
    """Raises ValueError for a tensor with values that are not finite, by its name in words."""
    for name, tensor in tensors.items():
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise ValueError(f"the {name.replace('_', ' ')} of this sampling holds values that are not finite (NaN or "
                             "infinity); expected numbers. Check the node that made it (a VAE in half precision is the "
                             "usual cause)")


def check_result(samples: Tensor, model: nn.Module) -> None:
    """Raises ValueError for latents (B, C, h, w) with values that are not finite, of which every decoder makes a black
    picture. model: the host's; named are its weights that are not finite either."""
    if bool(samples.isfinite().all()):
        return
    odd = [name for name, value in model.state_dict().items()
           if value.is_floating_point() and not bool(value.float().isfinite().all())]   # of fp8 there is no isfinite
    why = (f"{len(odd)} weights of the MODEL are not finite: {', '.join(odd[:LISTED])}. Load another file, or leave out the "
           "LoRA that you added last") if odd else (
        "its weights are finite, so something overflowed: lower cfg and the guidance weights, or start the host with "
        "--force-fp32")
    raise ValueError(f"the sampling ended in latents that are not finite (NaN or infinity), a black picture; {why}")
