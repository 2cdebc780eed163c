"""The noise schedule of a method in the host, where it is not the base model's."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import EPS, V_PREDICTION, ModelSamplingDiscrete
from torch import Tensor

from ...pgpis_models.noise.schedule import NoiseSchedule

# At zero terminal SNR sigma has no end; the host's own stand-in for alpha-bar 0 (comfy/model_sampling.py).
SMALLEST_ABAR = 4.8973451890853435e-08


def sigmas_of(schedule: NoiseSchedule) -> Tensor:
    """(T,) float32: noise to signal of every timestep, as the host counts it."""
    abar = schedule.alphas_cumprod.double().clamp(min=SMALLEST_ABAR)
    return ((1 - abar) / abar).sqrt().float()


class MethodSampling(ModelSamplingDiscrete):
    """Sampling on the schedule that a method was trained with."""


def with_schedule(model: ModelPatcher, schedule: NoiseSchedule | None, method: str) -> ModelPatcher:
    """A clone of the MODEL that samples on this schedule; the MODEL itself when there is none (the base's own is right).

    Raises ValueError, which names the method, for a MODEL on which another node has put a sampling: it would be lost.
    """
    if schedule is None:
        return model
    given = model.object_patches.get("model_sampling")
    if given is not None and not isinstance(given, MethodSampling):
        kinds = ", ".join(kind.__name__ for kind in type(given).__bases__)
        raise ValueError(f"this MODEL comes with a sampling of its own ({kinds}), as ModelSamplingDiscrete puts on, and "
                         f"{method} brings the noise schedule that it was trained on; expected one of them. Take the other "
                         "node out, or put it behind this one to sample its way")
    kind = V_PREDICTION if schedule.prediction == "v_prediction" else EPS

    class OfKind(MethodSampling, kind):
        pass
    sampling = OfKind(model.model.model_config, zsnr=schedule.zero_terminal_snr)
    sampling.set_sigmas(sigmas_of(schedule))
    clone = model.clone()
    clone.add_object_patch("model_sampling", sampling)
    return clone
