"""Parameter names and shapes of the Stable Diffusion UNet in diffusers' layout, without building one."""

from __future__ import annotations


def unet_shapes(widths: tuple[int, int, int, int] = (320, 640, 1280, 1280), context: int = 768, layers: int = 2,
                channels: int = 4) -> dict[str, tuple[int, ...]]:
    """Parameter name -> shape of the Stable Diffusion 1.x UNet in diffusers' layout (the defaults: 686 of them).

    widths: of the four levels; context: cross-attention width; layers: per down block; channels: of the latents.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def weight(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def resnet(name: str, before: int, after: int) -> None:
        weight(f"{name}.norm1", before)
        weight(f"{name}.conv1", after, before, 3, 3)
        weight(f"{name}.time_emb_proj", after, 4 * widths[0])
        weight(f"{name}.norm2", after)
        weight(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            weight(f"{name}.conv_shortcut", after, before, 1, 1)

    def transformer(name: str, width: int) -> None:
        weight(f"{name}.norm", width)
        weight(f"{name}.proj_in", width, width, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, source in (("attn1", width), ("attn2", context)):
            weight(f"{block}.{attention}.to_q", width, width, bias=False)
            weight(f"{block}.{attention}.to_k", width, source, bias=False)
            weight(f"{block}.{attention}.to_v", width, source, bias=False)
            weight(f"{block}.{attention}.to_out.0", width, width)
        for norm in ("norm1", "norm2", "norm3"):
            weight(f"{block}.{norm}", width)
        weight(f"{block}.ff.net.0.proj", 8 * width, width)
        weight(f"{block}.ff.net.2", width, 4 * width)
        weight(f"{name}.proj_out", width, width, 1, 1)

    weight("conv_in", widths[0], channels, 3, 3)
    weight("time_embedding.linear_1", 4 * widths[0], widths[0])
    weight("time_embedding.linear_2", 4 * widths[0], 4 * widths[0])
    skips, width = [widths[0]], widths[0]
    for index, after in enumerate(widths):
        for layer in range(layers):
            resnet(f"down_blocks.{index}.resnets.{layer}", width, after)
            if index < 3:
                transformer(f"down_blocks.{index}.attentions.{layer}", after)
            width = after
            skips.append(width)
        if index < 3:
            weight(f"down_blocks.{index}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(width)
    resnet("mid_block.resnets.0", width, width)
    transformer("mid_block.attentions.0", width)
    resnet("mid_block.resnets.1", width, width)
    for index, after in enumerate(reversed(widths)):
        for layer in range(layers + 1):
            resnet(f"up_blocks.{index}.resnets.{layer}", width + skips.pop(), after)
            if index > 0:
                transformer(f"up_blocks.{index}.attentions.{layer}", after)
            width = after
        if index < 3:
            weight(f"up_blocks.{index}.upsamplers.0.conv", width, width, 3, 3)
    weight("conv_norm_out", widths[0])
    weight("conv_out", channels, widths[0], 3, 3)
    return shapes
