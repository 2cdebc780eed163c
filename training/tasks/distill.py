"""Task `distill`: latent consistency distillation (Luo et al. 2023, LCM, arXiv 2310.04378, section 4) of a checkpoint of
any method into a LoRA on its UNet (LCM-LoRA, arXiv 2311.05556), guidance built in: a picture in few steps of one row.

The teacher is the checkpoint that `method.init` names: its encoders, side networks and UNet stay as they are. The target
network is a running average of the LoRA, as in LCM, or the student itself, as in LCM-LoRA's code. The guidance weight is not
told to the student: it is one, or drawn from a range (LCM-LoRA), whose middle the student then makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.noise.few_steps import Sampling
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.unet.guidance import Guidance
from pgpis_models.unet.injections import harmonise
from pgpis_models.unet.lora import change, write_lora
from training.engine.config import DistillConfig, TrainConfig
from training.engine.lora import OFF, STUDENT, TARGET, Lora
from training.engine.task import MethodTask
from training.tasks.cfld import CFLDTask
from training.tasks.fpdm import FPDMTask
from training.tasks.mcld import MCLDTask
from training.tasks.qen import QENTask

TEACHERS = {"cfld": CFLDTask, "fpdm": FPDMTask, "mcld": MCLDTask, "qen": QENTask}
SIGMA_DATA = 0.5   # of the boundary condition (LCM's code)
LOST = 1e-7        # the least sqrt(abar) that is divided by

Denoise = Callable[[Tensor, Tensor], Tensor]   # x_t (B, 4, h, w), t (B,) -> prediction of the schedule's kind


def consistency_loss(z: Tensor, noise: Tensor, step: Tensor, schedule: NoiseSchedule, student: Denoise, target: Denoise,
                     teacher: Denoise, settings: DistillConfig) -> Tensor:
    """The latent consistency distillation loss L_LCD with skipping steps (LCM section 4, algorithm 1).

    z, noise (B, 4, h, w): latents of the data, and standard normal. step (B,): 0..N-1, of the N = T / k steps of the
    solver's grid. student f_theta and target f_theta- see the conditions alone, teacher is guided (the augmented PF-ODE of
    section 4.2, whose combination over terms is the method's own chain).
    """
    def consistency(denoise: Denoise, x: Tensor, t: Tensor) -> Tensor:
        """f(x, c, t) = c_skip(t) x + c_out(t) x0(x, c, t), for epsilon- and v-prediction (section 4.1); f(x, c, 0) = x."""
        scaled = (t * settings.timestep_scale).to(x).view(-1, 1, 1, 1)
        c_skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2)
        c_out = scaled / (scaled ** 2 + SIGMA_DATA ** 2).sqrt()
        return c_skip * x + c_out * schedule.to_x0(denoise(x, t), x, t)

    k = settings.skip
    later = (step + 1) * k - 1                                           # t_{n+k}
    earlier = (later - k).clamp_min(0)                                   # t_n; the first is 0, where f is x itself
    x = schedule.add_noise(z, noise, later)                              # z_{t_{n+k}}
    made = consistency(student, x, later)                                # f_theta(z_{t_{n+k}}, c, t_{n+k})
    with torch.no_grad():
        guided = teacher(x, later)                                       # the chain's guided prediction (section 4.2)
        signal, spread = schedule.signal_and_noise(earlier, x)           # Psi: DDIM from t_{n+k} to t_n (section 4.3)
        solved = signal * schedule.to_x0(guided, x, later) + spread * schedule.to_epsilon(guided, x, later)
        wanted = consistency(target, solved, earlier)                    # f_theta-(z^_{t_n}, c, t_n)
    c = settings.huber
    return ((made - wanted).square() + c ** 2).sqrt().sub(c).mean()      # d: pseudo-Huber (LCM's code)


class DistillTraining(nn.Module):
    """A teacher's training module with a LoRA on its UNet; what is trained is the LoRA alone."""

    def __init__(self, teacher: nn.Module, schedule: NoiseSchedule, settings: DistillConfig) -> None:
        super().__init__()
        self.teacher, self.schedule, self.settings = teacher.requires_grad_(False), schedule, settings
        self.lora = Lora(teacher.unet, settings.layers, settings.rank, bool(settings.target_ema))
        if settings.lora:
            self.lora.load(settings.lora)

    @property
    def method(self) -> nn.Module:
        return self.teacher.method

    def train(self, mode: bool = True) -> DistillTraining:
        """Evaluation mode for the teacher, whose networks are all frozen; its UNet, which has no dropout, has the mode that
        gradient checkpointing wants."""
        super().train(mode)
        self.teacher.train(False)
        self.teacher.unet.train(mode)
        return self

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of the method's own -> (the loss, no parts)."""
        if self.training:   # after the step before
            self.lora.follow(self.settings.target_ema)
        with torch.no_grad():
            z, encoded = self.teacher.latents(batch), self.teacher.encode_batch(batch)
            chains = guidance_range(self.method, encoded, self.settings)
            teacher = self.guided(chains, z)
        student = self.conditional(chains[0], len(z), STUDENT)
        target = self.conditional(chains[0], len(z), TARGET)
        steps = torch.randint(self.schedule.steps // self.settings.skip, (len(z),), device=z.device)
        return consistency_loss(z, torch.randn_like(z), steps, self.schedule, student, target, teacher, self.settings), {}

    def conditional(self, chain: Guidance, rows: int, which: str) -> Denoise:
        """The chain's last term, which shows all conditions, on the UNet with `which` LoRA."""
        alone = harmonise([chain.terms[-1].injections], rows)
        stacked = alone.stacked()

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with self.lora.running(which):
                return self.teacher.binding(x, t, stacked, alone.control).float()
        return denoise

    def guided(self, chains: tuple[Guidance, Guidance], z: Tensor) -> Denoise:
        """The teacher between two chains of the same terms, each row at a random share of the way."""
        one = chains[0] is chains[1]
        terms = chains[0].needed().terms if one else chains[0].terms
        rows, count = harmonise([term.injections for term in terms], len(z)), len(terms)
        stacked = rows.stacked()

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with self.lora.running(OFF):
                made = self.teacher.binding(x.repeat(count, 1, 1, 1), t.repeat(count), stacked, rows.control).float()
            if one:
                return chains[0].needed().combine(made.chunk(count))
            low, high = (chain.combine(made.chunk(count)) for chain in chains)   # linear in the weights
            return torch.lerp(low, high, torch.rand(len(z), 1, 1, 1, device=z.device))
        return denoise


def guidance_range(method: nn.Module, encoded: Any, settings: DistillConfig) -> tuple[Guidance, Guidance]:
    """The teacher's chain at the lower and at the upper end of its weights; one and the same where they are fixed."""
    mode = settings.mode or method.guidance_modes[0]
    ends = [ends_of(name, value) for name, value in settings.weights.items()]
    low = method.guidance(encoded, mode, **{name: end[0] for name, end in zip(settings.weights, ends, strict=True)})
    if all(end[0] == end[1] for end in ends):
        return low, low
    return low, method.guidance(encoded, mode, **{name: end[1] for name, end in zip(settings.weights, ends, strict=True)})


def ends_of(name: str, value: Any) -> tuple[float, float]:
    """Lower and upper end of a guidance weight. Raises ValueError for anything but a number or two."""
    ends = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        raise ValueError(f"distill.weights.{name} is {value!r}; expected a number, or [from, to]")
    return float(ends[0]), float(ends[1])


class DistillTask:
    """Distils a checkpoint; the data are those of its method's own task."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        settings = config.distill
        if not Path(config.method.init).is_file():
            raise ValueError(f"method.init is {config.method.init!r}, which is no file; expected the checkpoint that is "
                             "distilled")
        for name, value in settings.weights.items():   # before data is read
            ends_of(name, value)
        own = dataclasses.replace(config, method=dataclasses.replace(config.method, reconstruct=False))
        self.config, self.device = config, device
        self.teacher = TEACHERS[settings.method](own, device)
        self.batch, self.unseen, self.loader_workers = (getattr(self.teacher, name)
                                                        for name in ("batch", "unseen", "loader_workers"))
        method = self.teacher.model.method
        schedule = getattr(method, "noise_schedule", lambda: None)() or self.teacher.sizes.schedule()
        if schedule.steps % settings.skip:
            raise ValueError(f"distill.skip is {settings.skip}; expected a divisor of {schedule.steps}, the timesteps of "
                             "the schedule")
        self.model = DistillTraining(self.teacher.model, schedule, settings).to(device)
        self.sampling = Sampling(settings.steps)
        self.teacher.sampled = self.sampled   # of its grids

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.lora.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """The method's own grid, as the student makes it."""
        return self.teacher.grid()

    def sampled(self, guidance: Guidance, count: int, _steps: int = 0, seed: int = 0,
                schedule: NoiseSchedule | None = None) -> Tensor:
        """As `MethodTask.sampled`, by the student: its own steps and sampler, the chain's last term alone."""
        alone = Guidance((guidance.terms[-1],))
        return MethodTask.sampled(self.teacher, alone, count, self.sampling.steps, seed, schedule, self.sampling.sampler)

    def export(self, path: Path, images: int) -> None:
        """The LoRA as `<path>_lora.safetensors`, and the checkpoint with it in its weights; with distill.merge=false the
        LoRA alone, as `path`."""
        data, licence = self.config.data, self.config.data.licence or self.teacher.licence
        changes, half = self.model.lora.changes(), self.teacher.base_name == "demo"
        about = {"method": self.config.distill.method, "base": self.teacher.base_name, "step": images,
                 "data": data.name or data.kind, "licence": licence, "sampling": dataclasses.asdict(self.sampling)}
        merge = self.config.distill.merge
        write_lora(path.with_name(f"{path.stem}_lora{path.suffix}") if merge else path, changes, about)
        if merge:
            unet = dict(self.teacher.model.unet.named_parameters())
            weights = {name: unet[name] for name in self.teacher.stored}
            weights |= {f"{name}.weight": unet[f"{name}.weight"] + change(*value) for name, value in changes.items()}
            save_checkpoint(path, self.model.method, weights, base=about["base"], step=images, data=about["data"],
                            licence=licence, dtype=torch.float16 if half else None, sampling=self.sampling)
