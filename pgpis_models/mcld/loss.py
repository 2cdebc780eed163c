"""What MCLD is trained and sampled with: schedules, noise offset, min-SNR weights and the loss on the face region.

Pure functions on tensors. The released code trains on a scaled linear schedule and samples on a linear
one, both with zero terminal SNR and velocity prediction; published weights go with that, so it is kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise.schedule import NoiseSchedule

FACE_PARTS = (23, 24)     # DensePose parts of the head, right and left


def training_schedule() -> NoiseSchedule:
    """Scaled linear betas, zero terminal SNR, velocity prediction."""
    return NoiseSchedule("scaled_linear", zero_terminal_snr=True, prediction="v_prediction")


def sampling_schedule() -> NoiseSchedule:
    """Linear betas, zero terminal SNR, velocity prediction; to be sampled on trailing timesteps."""
    return NoiseSchedule("linear", zero_terminal_snr=True, prediction="v_prediction")


def offset_noise(noise: Tensor, shift: Tensor | None = None, strength: float = 0.05) -> Tensor:
    """Training noise with one constant per picture and channel added, so that overall brightness is learnt too.

    noise (B, C, H, W), standard normal; shift (B, C, 1, 1), standard normal, drawn here when None; strength: its standard
    deviation. Returns noise + strength * shift, whose variance is a little above 1, as in the authors' code.
    """
    if shift is None:
        shift = torch.randn(*noise.shape[:2], *(1,) * (noise.ndim - 2), device=noise.device, dtype=noise.dtype)
    return noise + strength * shift


def face_mask(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """Which latent pixels show the head: (B, 1, h, w) bool.

    parts (B, H, W) or (B, 1, H, W): DensePose part per pixel, integers 0..24, as the pose picture at the generated size
    holds them (`parts_of_pose`). size: (h, w) of the latents. Nearest-neighbour, so a head smaller than a latent pixel
    can be missed. Raises ValueError for floating point maps and other shapes.
    """
    if parts.is_floating_point() or parts.ndim not in (3, 4) or (parts.ndim == 4 and parts.shape[1] != 1):
        raise ValueError(f"parts came as {parts.dtype} {tuple(parts.shape)}; expected integers (B, H, W) or (B, 1, H, W), "
                         "as `parts_of_pose` gives them")
    parts = parts if parts.ndim == 4 else parts[:, None]
    mask = torch.zeros_like(parts, dtype=torch.bool)
    for part in FACE_PARTS:
        mask |= parts == part
    return F.interpolate(mask.float(), size=size, mode="nearest") > 0.5


def parts_of_pose(pose: Tensor) -> Tensor:
    """pose (B, 3, H, W) in [0, 1], channels V, U, part / 255 -> (B, H, W) int64.

    The picture was resized with a bicubic filter, so along borders there are numbers between those of two parts, above
    24 too; the authors' mask reads them as they are.
    """
    return (pose[:, 2].float() * 255).round().long()


def min_snr_weights(schedule: NoiseSchedule, t: Tensor, gamma: float = 5.0) -> Tensor:
    """Loss weight per timestep (Hang et al. 2023, in the form for velocity): min(snr + 1, gamma) / (snr + 1).

    t (B,) int64 -> (B,) float32 in (0, 1]; 1 at zero SNR. Raises ValueError for gamma not above 0.
    """
    if gamma <= 0:
        raise ValueError(f"min-SNR gamma is {gamma}; expected above 0 (0 means no weighting: see `mcld_loss`)")
    snr = schedule.snr(t) + 1
    return snr.clamp(max=gamma) / snr


def mcld_loss(prediction: Tensor, target: Tensor, t: Tensor, schedule: NoiseSchedule, face: Tensor | None = None,
              gamma: float = 5.0) -> Tensor:
    """The training loss, a scalar: mean over the batch of min-SNR weight * (mean(e) + mean(e * face)).

    prediction, target (B, C, h, w): velocities, e their squared difference; t (B,); face (B, 1, h, w) bool or None.
    The face term is a mean over ALL elements, not over those of the mask, so it counts for more in close-ups. As in
    the authors' code gamma 0 means plain mean squared error WITHOUT the face term. Raises ValueError on shapes that do
    not fit.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; expected the same")
    error = (prediction.float() - target.float()).square()
    if gamma == 0:
        return error.mean()
    if face is not None:
        expected = (error.shape[0], 1, *error.shape[2:])
        if tuple(face.shape) != expected:
            raise ValueError(f"face mask has shape {tuple(face.shape)}; expected {expected}, one value per latent pixel: "
                             "give `face_mask` the size of the latents")
        error = error * (1 + face.to(error.dtype))
    weights = min_snr_weights(schedule, t, gamma).to(error.device)
    return (error.flatten(1).mean(1) * weights).mean()
