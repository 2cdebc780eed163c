"""Parameter names and shapes of the Stable Diffusion UNet in diffusers' layout, without building one."""

from __future__ import annotations

from collections.abc import Sequence

Shapes = dict[str, tuple[int, ...]]

BLOCK = ("attn1", "attn2", "norm1", "norm2", "norm3")   # order in a transformer block, by which optimisers number weights


def unet_shapes(widths: tuple[int, int, int, int] = (320, 640, 1280, 1280), context: int = 768, layers: int = 2,
                channels: int = 4) -> Shapes:
    """Parameter name -> shape of the Stable Diffusion 1.x UNet in diffusers' layout (the defaults: 686 of them).

    widths: of the four levels; context: cross-attention width; layers: per down block; channels: of the latents.
    """
    shapes = encoder_shapes(widths, context, layers, channels)
    skips, width, time = skip_widths(widths, layers), widths[-1], 4 * widths[0]
    for index, after in enumerate(reversed(widths)):
        for layer in range(layers + 1):
            shapes |= _resnet(f"up_blocks.{index}.resnets.{layer}", width + skips.pop(), after, time)
            if index > 0:
                shapes |= _transformer(f"up_blocks.{index}.attentions.{layer}", after, context)
            width = after
        if index < 3:
            shapes |= layer_shapes(f"up_blocks.{index}.upsamplers.0.conv", width, width, 3, 3)
    return shapes | layer_shapes("conv_norm_out", widths[0]) | layer_shapes("conv_out", channels, widths[0], 3, 3)


def encoder_shapes(widths: Sequence[int], context: int, layers: int, channels: int,
                   block: Sequence[str] = BLOCK) -> Shapes:
    """The same of the UNet's way down and its middle alone, which is what a control network starts from. block: the order
    of what a transformer block holds."""
    time = 4 * widths[0]
    shapes = (layer_shapes("conv_in", widths[0], channels, 3, 3) | layer_shapes("time_embedding.linear_1", time, widths[0])
              | layer_shapes("time_embedding.linear_2", time, time))
    width = widths[0]
    for index, after in enumerate(widths):
        for layer in range(layers):
            shapes |= _resnet(f"down_blocks.{index}.resnets.{layer}", width, after, time)
            if index < 3:
                shapes |= _transformer(f"down_blocks.{index}.attentions.{layer}", after, context, block)
            width = after
        if index < 3:
            shapes |= layer_shapes(f"down_blocks.{index}.downsamplers.0.conv", width, width, 3, 3)
    return (shapes | _resnet("mid_block.resnets.0", width, width, time)
            | _transformer("mid_block.attentions.0", width, context, block)
            | _resnet("mid_block.resnets.1", width, width, time))


def skip_widths(widths: Sequence[int], layers: int) -> list[int]:
    """Channels of the skip connections (12 of two layers), in the order of the way down."""
    skips = [widths[0]]
    for index, width in enumerate(widths):
        skips += [width] * (layers + (index < 3))   # the last level has no downsampler
    return skips


def layer_shapes(name: str, *shape: int, bias: bool = True) -> Shapes:
    """Of one layer: its weight, and a bias as long as its first axis."""
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def _resnet(name: str, before: int, after: int, time: int) -> Shapes:
    shortcut = layer_shapes(f"{name}.conv_shortcut", after, before, 1, 1) if before != after else {}
    return (layer_shapes(f"{name}.norm1", before) | layer_shapes(f"{name}.conv1", after, before, 3, 3)
            | layer_shapes(f"{name}.time_emb_proj", after, time)
            | layer_shapes(f"{name}.norm2", after) | layer_shapes(f"{name}.conv2", after, after, 3, 3) | shortcut)


def _transformer(name: str, width: int, context: int, order: Sequence[str] = BLOCK) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    shapes = layer_shapes(f"{name}.norm", width) | layer_shapes(f"{name}.proj_in", width, width, 1, 1)
    for part in order:
        if part.startswith("norm"):
            shapes |= layer_shapes(f"{block}.{part}", width)
        else:
            shapes |= _attention(f"{block}.{part}", width, width if part == "attn1" else context)
    return (shapes | layer_shapes(f"{block}.ff.net.0.proj", 8 * width, width)
            | layer_shapes(f"{block}.ff.net.2", width, 4 * width) | layer_shapes(f"{name}.proj_out", width, width, 1, 1))


def _attention(name: str, width: int, seen: int) -> Shapes:
    keys = layer_shapes(f"{name}.to_k", width, seen, bias=False) | layer_shapes(f"{name}.to_v", width, seen, bias=False)
    return layer_shapes(f"{name}.to_q", width, width, bias=False) | keys | layer_shapes(f"{name}.to_out.0", width, width)
