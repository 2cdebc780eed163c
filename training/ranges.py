"""What values the settings of a training run may have: one table by dotted name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

# what is expected -> (the test, the settings; of lists every item counts)
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "1 or more": (lambda value: value >= 1, """
        images batch accumulate log_every data.size data.identities data.views autoencoder.width autoencoder.crop
        decoder.pairs base.block_out_channels base.layers_per_block base.heads base.cross_attention_dim
        fpdm.pairs_per_person fpdm.pose_canvas fpdm.low_size mcld.std_photos"""),
    "0 or more": (lambda value: value >= 0, """
        warmup_images weight_decay clip threads seed sample_every save_every data.seed data.workers
        autoencoder.latent_noise autoencoder.latent_unit method.caption_loss method.teacher method.pixels
        method.part_colours fpdm.l1_weight fpdm.kinds fpdm.noise_offset fpdm.joint_noise qen.backbone_rate mcld.snr_gamma
        mcld.noise_offset mcld.embedding_noise"""),
    "more than 0": (lambda value: value > 0, """
        lr autoencoder.foreground base.foreground method.timestep_power method.foreground fpdm.temperature"""),
    "0 or more, and less than 1": (lambda value: 0 <= value < 1, "ema betas"),
    "0 to 1": (lambda value: 0 <= value <= 1, """
        decay_share decoder.share base.caption_drop base.pose_drop fpdm.input_drop fpdm.lettered fpdm.flip fpdm.identity
        fpdm.low_share mcld.uncond_drop mcld.image_drop mcld.reference_drop method.caption_metric"""),
}


def check_ranges(config: Any) -> None:
    """config: a TrainConfig. Raises ValueError that names the first setting outside its range; what is not a finite number
    is outside of all."""
    for expected, (fits, names) in RANGES.items():
        for name in names.split():
            value = reduce(getattr, name.split("."), config)
            items = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(item) and fits(item) for item in items):
                said = list(value) if isinstance(value, tuple) else value
                raise ValueError(f"{name} is {said}; expected {expected}{' of every value' if value is items else ''}")
