"""Demo only: of what there are kinds, such as letters and hair styles, an encoder's word counts as a choice among them.

A caption says a kind by one number of several, and the squared error of those is learned last: a letter is twelve of 1024
numbers, nearly always nought, so an encoder says nought for ever, legible as the letter is. Cross-entropy looks at which of
the numbers is the largest, and the squared error beside it at how large. No published training of these methods has it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.captions import KINDS

SHARPNESS = 6.0   # logits of a number that says "this one"; "not this one" is 0. Higher, and doubt would cost too much


def kinds_error(prompt: Tensor, caption: Tensor) -> Tensor:
    """Cross-entropy of the kinds that a prompt names against a caption's, both (B, T, C): summed over KINDS, each a mean
    over the people that have one (0 where nobody has). Nats."""
    total = prompt.new_zeros((), dtype=torch.float32)
    for kind in KINDS.values():
        said, truth = (tokens[:, kind.token, kind.columns].float() / kind.size for tokens in (prompt, caption))
        each = F.cross_entropy(SHARPNESS * said, truth.argmax(1), reduction="none")
        has = torch.ones_like(each) if kind.only is None else (caption[:, kind.token, kind.only] > 0.5).float()
        total = total + (each * has).sum() / has.sum().clamp(min=1.0)
    return total
