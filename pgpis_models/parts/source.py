"""What the configs of the methods share: tuples in place of lists, and the Swin backbone that reads the source photo."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .swin import SwinBackbone


def lists_to_tuples(config: object) -> None:
    """Makes tuples of a frozen dataclass's lists, which come from JSON and YAML; for its __post_init__."""
    for item in fields(config):
        if isinstance(getattr(config, item.name), list):
            object.__setattr__(config, item.name, tuple(getattr(config, item.name)))


@dataclass(frozen=True)
class SwinSourceConfig:
    """Sizes of the source photo and of its Swin backbone; the defaults are CFLD's at 256 x 256, in pixels and tokens.

    image_size: source image (height, width) in pixels.
    swin_*, window, patch, mlp_ratio, drop_path: see SwinBackbone.
    Raises ValueError unless there are four stages.
    """

    image_size: tuple[int, int] = (256, 256)
    patch: int = 4
    window: int | tuple[int, int] = 16
    swin_width: int = 128
    swin_depths: tuple[int, ...] = (2, 2, 18, 2)
    swin_heads: tuple[int, ...] = (4, 8, 16, 32)
    mlp_ratio: float = 4.0
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        lists_to_tuples(self)
        if len(self.swin_depths) != 4 or len(self.swin_heads) != 4:
            raise ValueError(f"swin_depths {self.swin_depths} and swin_heads {self.swin_heads}: expected four stages")

    def backbone(self) -> SwinBackbone:
        """The backbone of these sizes, with fresh weights."""
        return SwinBackbone(self.image_size, self.window, self.swin_width, self.swin_depths, self.swin_heads, self.patch,
                            self.mlp_ratio, self.drop_path)
