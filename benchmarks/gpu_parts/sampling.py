"""Sampling: a step over the bare UNet's, a whole generation over floor and decoder, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pgpis_models.noise.samplers import sample_latents
from pgpis_models.noise.schedule import ddim_step, trailing_timesteps
from pgpis_models.unet.autoencoder import decode_latents
from pgpis_models.unet.diffusers_binding import DiffusersBinding

from .models import TEXT_TOKENS, Bundle, bundle, made
from .timing import Report, free, peak_memory, seconds

STEPS = 20


@dataclass
class Sampler:
    """A method bound to its UNet, with everything encoded: what a sampler calls at each step.

    denoise: f(x (B, 4, h, w) float32, t) -> guided prediction float32; the networks run in the bundle's type.
    """

    bundle: Bundle
    binding: DiffusersBinding
    denoise: Callable[[Tensor, int], Tensor]
    batch: int
    terms: int

    def x(self) -> Tensor:
        return torch.randn(self.batch, 4, *self.bundle.latent, device=self.bundle.device)

    def step(self, x: Tensor) -> Tensor:
        """One step in the middle of the chain: the UNet on all terms, guidance, and the sampler's own arithmetic."""
        schedule = self.bundle.schedule
        now, then = trailing_timesteps(STEPS, schedule.steps)[STEPS // 2:][:2].tolist()
        return ddim_step(schedule, self.denoise(x, now), x, now, then)


@torch.no_grad()
def sampler(found: Bundle, binding: DiffusersBinding, batch: int, inputs: dict[str, Tensor] | None = None) -> Sampler:
    """Encodes `inputs` (fresh ones when None) and prepares the method's own guidance chain."""
    guidance = found.guidance(found.inputs(batch) if inputs is None else inputs)
    inner = binding.denoiser(guidance, batch)
    return Sampler(found, binding, lambda x, t: inner(x.to(found.dtype), t).float(), batch, len(guidance.terms))


def bare_step(found: Bundle, rows: int) -> Callable[[], Tensor]:
    """The UNet alone on so many rows, as diffusers runs it: its own attention, 77 tokens of context."""
    x = torch.randn(rows, 4, *found.latent, device=found.device, dtype=found.dtype)
    context = torch.randn(rows, TEXT_TOKENS, found.sizes.cross_attention_dim, device=found.device, dtype=found.dtype)
    time = torch.full((rows,), 500, device=found.device)
    return lambda: found.unet(x, time, encoder_hidden_states=context, return_dict=False)[0]


class TwiceTheKeys:
    """Self-attention that sees every row's own tokens twice: as many keys as with MCLD's reference."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, attn: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner(attn, hidden_states, torch.cat([hidden_states, hidden_states], 1))


def equal_work(found: Bundle, batch: int, rows: int, repeats: int) -> float | None:
    """Seconds of a step of the bare UNet with what the method adds by design in its plainest form: twice the keys for MCLD,
    diffusers' own ControlNet for QEN; None where nothing large is added."""
    bare = bare_step(found, rows)
    if found.name == "mcld":
        before = dict(found.unet.attn_processors)
        found.unet.set_attn_processor({
            name: TwiceTheKeys(own) if ".attn1." in name else own for name, own in before.items()})
        try:
            return seconds(bare, found.device, repeats)
        finally:
            found.unet.set_attn_processor(before)
    if found.name == "qen":
        from diffusers import ControlNetModel
        sizes = found.sizes
        net = made(lambda: ControlNetModel(
            block_out_channels=sizes.block_out_channels, cross_attention_dim=sizes.cross_attention_dim,
            attention_head_dim=sizes.heads_of), found.device, found.dtype)
        net.controlnet_cond_embedding = nn.Identity()
        x = torch.randn(batch, 4, *found.latent, device=found.device, dtype=found.dtype)
        pose = torch.randn(batch, sizes.block_out_channels[0], *found.latent, device=found.device, dtype=found.dtype)
        context = torch.randn(batch, found.method.config.tokens, sizes.cross_attention_dim, device=found.device,
                              dtype=found.dtype)
        time = torch.full((batch,), 500, device=found.device)

        def both() -> None:
            bare()
            net(x, time, encoder_hidden_states=context, controlnet_cond=pose, return_dict=False)
        return seconds(both, found.device, repeats)
    return None


def generation(one: Sampler, inputs: dict[str, Tensor], steps: int) -> Tensor:
    """Encode once, DDIM steps, decode: pictures (B, 3, H, W) of prepared inputs."""
    found = one.bundle
    fresh = sampler(found, one.binding, one.batch, inputs)
    latents = sample_latents(fresh.denoise, found.schedule, (one.batch, 4, *found.latent), steps=steps, device=found.device)
    return decode_latents(found.vae, latents.to(found.dtype))


@torch.no_grad()
def measure(report: Report, found: Bundle, batch: int, repeats: int) -> None:
    """All figures of one method, size and batch."""
    steps = STEPS if repeats > 1 else 2
    device, case = found.device, f"{found.name} {found.size[0]}x{found.size[1]} b{batch}"
    inputs = found.inputs(batch)
    encode = seconds(lambda: found.guidance(inputs), device, repeats, about=0.5)
    rows = len(found.guidance(inputs).terms) * batch
    with peak_memory(device) as bare_memory:
        bare = seconds(bare_step(found, rows), device, repeats)
    equal = equal_work(found, batch, rows, repeats)
    binding = DiffusersBinding(found.unet)
    try:
        one = sampler(found, binding, batch, inputs)
        x = one.x()
        model = seconds(lambda: one.denoise(x, 500), device, repeats)
        step = seconds(lambda: one.step(x), device, repeats, warm=1)
        latents = x.to(found.dtype)
        decode = seconds(lambda: decode_latents(found.vae, latents), device, repeats, about=0.5)
        free()
        with peak_memory(device) as memory:
            whole = seconds(lambda: generation(one, inputs, steps), device, min(2, repeats), warm=0)
    finally:
        binding.release()
    settings = {"method": found.name, "size": list(found.size), "batch": batch, "terms": one.terms, "steps": steps,
                "sampler": "ddim", "dtype": str(found.dtype).removeprefix("torch.")}

    def add(measure: str, value: float, unit: str) -> None:
        report.add("sampling", case, measure, value, unit, **settings)
    add("bare step", bare * 1e3, "ms")
    add("model call", model * 1e3, "ms")
    add("step", step * 1e3, "ms")
    add("call / bare", model / bare, "ratio")
    add("step / bare", step / bare, "ratio")
    if equal is not None:
        add("step / equal work", step / equal, "ratio")
    add("encode", encode * 1e3, "ms")
    add("decode", decode * 1e3, "ms")
    add("generation", whole, "s")
    add("generation / floor", whole / (steps * bare + decode), "ratio")
    if equal is not None:
        add("generation / equal floor", whole / (steps * equal + decode), "ratio")
    add("pictures/s", batch / whole, "1/s")
    if device.type == "cuda":
        add("peak", memory["gib"], "GiB")
        add("bare peak", bare_memory["gib"], "GiB")


def run(report: Report, methods: tuple[str, ...], sizes: tuple[tuple[int, int], ...], batches: tuple[int, ...],
        dtype: torch.dtype, tiny: bool, repeats: int) -> None:
    """Every method at every size and batch. The networks are built once per method and size."""
    for size in sizes:
        for name in methods:
            held: list[Bundle] = []
            case = f"{name} {size[0]}x{size[1]}"
            report.unit("sampling", case, lambda: held.append(bundle(name, size, report.device, dtype, tiny)))  # noqa: B023
            for batch in batches if held else ():
                report.unit("sampling", f"{case} b{batch}", lambda: measure(report, held[0], batch, repeats))  # noqa: B023
            held.clear()
            free()
