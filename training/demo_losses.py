"""What the demo's training may add to the loss of a method, beside its own: copying the base, and losses in pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pgpis_models.pose_factored import FactoredRasters
from pgpis_models.schedule import NoiseSchedule
from training.config import MethodConfig
from training.pixels import Decoder, PredictionRecorder, part_colour_error
from training.teacher import Distillation, Teacher, open_teacher


class DemoLosses:
    """The added losses of a run; of a run that asks for none, nothing. No module: teacher and decoder are neither trained
    nor saved."""

    def __init__(self, settings: MethodConfig, vae: nn.Module | None, device: torch.device) -> None:
        self.settings = settings
        self.teacher: Teacher | None = open_teacher(settings, device)
        self.decoder = Decoder(vae, settings.pixels_psnr) if settings.pixels else None

    def watch(self, binding: Callable[..., Tensor], unet: nn.Module, schedule: NoiseSchedule, batch: Mapping[str, Tensor],
              told: Callable[[], tuple[Tensor, Tensor | FactoredRasters]]) -> Watched:
        """The binding for one batch, to be called once by the loss. unet: the method's. batch: brings `picture` and `part`
        for the losses in pixels. told: gives caption (B, T, C) and CFLD's raster (B, 21, ...) of the rows that the loss
        denoises; called for a teacher alone."""
        distilled = None
        if self.teacher:
            distilled = self.teacher.distillation(unet, *told())
            binding = distilled.beside(binding)
        return Watched(self, distilled, PredictionRecorder(binding, schedule), batch)


class Watched:
    """A binding whose call also leaves what the added losses need."""

    def __init__(self, losses: DemoLosses, distilled: Distillation | None, recorder: PredictionRecorder,
                 batch: Mapping[str, Tensor]) -> None:
        self.losses, self.distilled, self.recorder, self.batch = losses, distilled, recorder, batch

    def __call__(self, noisy: Tensor, timesteps: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return self.recorder(noisy, timesteps, rows)

    def added(self, logs: dict[str, Tensor]) -> Tensor | float:
        """The weighted sum of the added losses after the call; their parts go into logs."""
        losses, total = self.losses, 0.0
        if self.distilled:
            total, logs["teacher"] = losses.settings.teacher * self.distilled.error, self.distilled.error.detach()
        if losses.decoder:
            made, picture, settings = losses.decoder.made(self.recorder.clean), self.batch["picture"], losses.settings
            error = losses.decoder.error(made, picture)
            total, logs["pixels"] = total + settings.pixels * error, error.detach()
            if settings.part_colours:
                error = part_colour_error(made, picture, self.batch["part"])
                total, logs["part_colours"] = total + settings.part_colours * error, error.detach()
        return total
