"""A PGPIS_COND put onto a MODEL: what Apply PGPIS and Pose Transfer share."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from ..pgpis_models.unet.guidance import Guidance
from ..pgpis_models.unet.injections import Rows, harmonise
from .binding.model import apply_injections, conditionings
from .binding.passport import Passport, check_aspect, check_layout
from .binding.schedule import with_schedule
from .binding.span import NEGATIVE, POSITIVE, as_role, check_span, outside, within
from .binding.weights import check_prediction
from .schema import ADVANCED
from .types import Cond


def around_inputs() -> list[io.Input]:
    """Inputs for what acts without the method. In this order and right behind `model`, so that the host, which gives each
    output of a bypassed node the input at its place or else the first of its type, passes all four on."""
    return [io.Conditioning.Input("positive", optional=True, tooltip="Acts outside of start_percent to end_percent, and "
                                  "alone when this node is bypassed (Ctrl+B), so that one sees the plain model."),
            io.Conditioning.Input("negative", optional=True, tooltip="As positive, for negative."),
            io.Latent.Input("latent", optional=True, tooltip="Latents to start from, of the checkpoint's shape and any "
                            "size; of some of a batch (LatentFromBatch) their numbers choose the pairs. Empty ones are made "
                            "when nothing is connected. Passed on when this node is bypassed.")]


def span_inputs(**kwargs) -> list[io.Input]:
    """Widgets for the share of the sampling in which the conditions act."""
    return [io.Float.Input("start_percent", **ADVANCED, default=0.0, min=0.0, max=1.0, step=0.001,
                           tooltip="Share of the sampling from "
                           "which person and pose act. Before it: positive and negative, where connected; else the method's "
                           "'nothing'. The checkpoint's UNet weights stay.", **kwargs),
            io.Float.Input("end_percent", **ADVANCED, default=1.0, min=0.0, max=1.0, step=0.001,
                           tooltip="Share of the sampling up to "
                           "which person and pose act. After it as before start_percent.", **kwargs)]


def outputs() -> list[io.Output]:
    """MODEL, positive, negative, LATENT for any KSampler."""
    return [io.Model.Output(display_name="model", tooltip="The MODEL with the method on it."),
            io.Conditioning.Output(display_name="positive", tooltip="Pose and appearance, for positive."),
            io.Conditioning.Output(display_name="negative", tooltip="Neither of them, for negative; with MCLD the pose "
                                   "alone."),
            io.Latent.Output(display_name="latent", tooltip="Latents of the right shape and number: those that are "
                             "connected, or empty ones.")]


def applied(model, cond: Cond, positive=None, negative=None, latent: dict | None = None, start: float = 0.0,
            end: float = 1.0) -> tuple:
    """MODEL, positive, negative, LATENT of a PGPIS_COND that acts from start to end of the sampling, shares of 0 to 1.

    positive, negative: act outside of it; the method's null where None. When it acts never and both are given, the MODEL is
    the plain one. Raises ValueError where something does not fit.
    """
    check_span(start, end)
    numbers = None if latent is None else pairs_of(cond, latent)
    made = empty_latent(cond) if latent is None else latent
    if start == end and positive is not None and negative is not None:
        return model, positive, negative, made
    terms = cond.guidance().terms
    patched, (null, full) = bound(model, cond, Guidance((terms[0], terms[-1])), numbers)
    before, null_before = null if positive is None else positive, null if negative is None else negative
    if start == end:
        full, null = before, null_before
    elif start > 0 or end < 1:
        full = within(full, start, end) + outside(before, start, end)
        if negative is not None:
            null = within(null, start, end) + outside(negative, start, end)
    return patched, as_role(full, POSITIVE), as_role(null, NEGATIVE), made


def bound(model, cond: Cond, guidance: Guidance, numbers: list[int] | None = None) -> tuple:
    """The MODEL with the method on it, and one CONDITIONING per term of the chain; numbers: of the pairs that are wanted."""
    checkpoint, origin = cond.method.checkpoint, cond.method.origin
    check_prediction(model, checkpoint.meta, cond.method.name)
    rows = harmonise([term.injections for term in guidance.terms], cond.batch)
    if numbers is not None:
        rows = Rows(tuple({name: value[numbers] for name, value in term.items()} for term in rows.terms), rows.control)
    patched = apply_injections(model, rows, checkpoint.unet_weights, origin.name, origin.digest)
    schedule = getattr(checkpoint.method, "noise_schedule", None)
    patched = with_schedule(patched, schedule() if schedule else None, cond.method.name)
    return patched, conditionings(rows, cond.latent_size, origin)


def empty_latent(cond: Cond) -> dict:
    """LATENT (B, 4, h, w) of zeros for the pictures that the PGPIS_COND will make."""
    return {"samples": torch.zeros(cond.batch, 4, *cond.latent_size, device=comfy.model_management.intermediate_device())}


def pairs_of(cond: Cond, latent: dict) -> list[int] | None:
    """The numbers of the encoded pairs that these latents are for; None for all of them, in order.

    Raises ValueError for latents of another shape or number.
    """
    samples = latent["samples"]
    if samples.ndim != 4 or samples.any():   # the host itself gives empty latents the channels of the MODEL
        check_layout(samples.shape)
    check_aspect((samples.shape[-2], samples.shape[-1]), Passport(cond.latent_size, cond.method.origin))
    count, numbers = samples.shape[0], latent.get("batch_index")
    if count % cond.batch == 0:
        return None
    if numbers is None or len(numbers) != count or max(numbers) >= cond.batch:
        raise ValueError(f"{cond.batch} source and pose pairs are encoded, the latent input holds {count} latents; expected "
                         f"{cond.batch}, a multiple, or some of {cond.batch} by LatentFromBatch. Leave the input free for "
                         "empty latents of the right number")
    return list(numbers)
