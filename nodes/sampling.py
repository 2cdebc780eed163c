"""Nodes that join a MODEL and a PGPIS_COND for sampling."""

from __future__ import annotations

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io

from ..pgpis_models.garments.feathering import FADES, FEATHER, GROW, feathered, paste
from ..pgpis_models.methods import guidance_modes
from .applying import applied, around_inputs, bound, empty_latent, outputs, span_inputs
from .binding.guider import ChainGuider
from .binding.span import check_span
from .inputs import as_image, matched, needed, resized, rgb
from .notice import notice
from .schema import ADVANCED, aliases
from .types import CondType

SCALES = ("pose", "appearance", "biases", "prompt", "source", "fusion")
METHODS_OWN = "default"
SHAPE = 0.02   # share by which a mask's shape may differ from the reference's: rounding to pixels


class Apply(io.ComfyNode):
    """MODEL and PGPIS_COND -> MODEL, positive, negative, LATENT for any KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISApply", display_name="Apply PGPIS", category="PGPIS/sampling",
            **aliases("pose transfer", "person", "conditioning", "cfld", "mcld", "fpdm", "qen"),
            description="Puts a source person and target pose onto a MODEL for any KSampler. The sampler's cfg weighs "
                        "whatever the negative lacks: pose and appearance alike (MCLD's negative keeps the pose); for one "
                        "weight each use PGPIS Guider. LoRAs, ControlNets and other patches on the MODEL keep working.",
            inputs=[io.Model.Input("model", tooltip="The base model that the checkpoint was trained on, or a finetune or "
                                   "LoRA of it."),
                    *around_inputs(),
                    # Needed, but optional to the host, which would put a required input before the three.
                    CondType.Input("cond", optional=True, tooltip="Source person and target pose, from an embedding node. "
                                   "Needed."),
                    *span_inputs(optional=True)],
            outputs=outputs())

    @classmethod
    def execute(cls, model, cond=None, positive=None, negative=None, latent=None, start_percent=0.0,
                end_percent=1.0) -> io.NodeOutput:
        needed("Apply PGPIS", cond=(cond, "the PGPIS_COND of an embedding node"))
        return io.NodeOutput(*applied(model, cond, positive, negative, latent, start_percent, end_percent))


class GuiderNode(io.ComfyNode):
    """MODEL and PGPIS_COND -> GUIDER with one weight per guidance term."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        modes = guidance_modes()

        def weight(name: str, what: str, **kwargs) -> io.Float.Input:
            users = ", ".join(mode for mode, methods in modes.items() if any(name in scales for scales in methods.values()))
            return io.Float.Input(name, default=2.0, min=0.0, max=30.0, step=0.05, tooltip=f"{what} Used by {users}.",
                                  **kwargs)
        return io.Schema(
            node_id="PGPISGuider", display_name="PGPIS Guider", category="PGPIS/sampling",
            **aliases("pose transfer", "person", "guidance", "cfg", "cfld", "mcld", "fpdm", "qen"),
            description="Cumulative guidance (as CFLD's eq. 7) for SamplerCustomAdvanced: each guidance term has its own "
                        "weight, and all terms of a step run as one batch. Terms that weigh nothing are not run.",
            inputs=[io.Model.Input("model", tooltip="The base model that the checkpoint was trained on, or a finetune or "
                                   "LoRA of it."),
                    CondType.Input("cond", tooltip="Source person and target pose, from an embedding node."),
                    io.Combo.Input("mode", options=[METHODS_OWN, *modes], default=METHODS_OWN,
                                   tooltip="Which terms there are. default: the authors' of the method. uc_down_full: "
                                   "nothing, then pose, then appearance (CFLD's paper). uc_full: nothing, then all. "
                                   "updown_full: pose and biases, then the prompt. down_full: pose, then appearance (MCLD's "
                                   "own). uc_source_fusion: nothing, then source and pose, then the fusion embedding "
                                   "(FPDM's own). The two longest part query biases from prompt."),
                    weight("pose", "Weight of the pose against nothing."),
                    weight("appearance", "Weight of the full appearance against the term before it."),
                    weight("biases", "Weight of the query biases against the pose."),
                    weight("prompt", "Weight of the coarse prompt against the pose."),
                    weight("source", "Weight of source and pose against nothing.", optional=True),
                    weight("fusion", "Weight of the fusion embedding against source and pose.", optional=True),
                    io.Float.Input("start_percent", **ADVANCED, default=0.0, min=0.0, max=1.0, step=0.001, optional=True,
                                   tooltip="Share of the sampling from which the weights act: the guidance interval. "
                                   "Outside of it the last term runs alone, at the cost of one."),
                    io.Float.Input("end_percent", **ADVANCED, default=1.0, min=0.0, max=1.0, step=0.001, optional=True,
                                   tooltip="Share of the sampling up to which the weights act.")],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced or Masked Sampler."),
                     io.Latent.Output(display_name="latent", tooltip="Empty latents of the right size and number."),
                     io.Model.Output(display_name="model", tooltip="The MODEL with the method on it, for BasicScheduler: "
                                     "some methods (MCLD's published weights) have a noise schedule of their own.")])

    @classmethod
    def execute(cls, model, cond, mode, start_percent=0.0, end_percent=1.0, **scales) -> io.NodeOutput:
        check_span(start_percent, end_percent)
        module = cond.method.checkpoint.method
        mode = module.guidance_modes[0] if mode == METHODS_OWN else mode
        used = module.guidance_scales(mode)
        guidance = cond.guidance(mode, **{name: scales[name] for name in SCALES if name in used and name in scales})
        patched, conds = bound(model, cond, guidance)
        guider = ChainGuider(patched)
        guider.set_chain(guidance, conds)
        guider.set_interval(start_percent, end_percent)
        return io.NodeOutput(guider, empty_latent(cond), patched)


class MaskedSampler(io.ComfyNode):
    """Samples inside a mask and keeps the rest of a reference picture to the pixel (CFLD section 4.6, QEN section 4.6).

    QEN writes eps' = m eps_t + (1 - m) z_src, a noise prediction mixed with the noised source; this mixes latents, the
    reference at the step's noise level in place of the second, as CFLD does. What is kept is called `reference` here and the
    source in QEN's paper, whose reference gives the clothes; here they come with the guider's or the model's conditioning.
    Pasting after decoding is ours.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISMaskedSampler", display_name="Masked Sampler (Try-on)", category="PGPIS/sampling",
            **aliases("try on", "virtual try-on", "garment", "clothes", "inpaint", "person"),
            description="Makes a new picture inside the mask and keeps the reference outside. At every step the kept part "
                        "is the reference at the step's noise level (masked sampling of CFLD section 4.6 and QEN section "
                        "4.6); after decoding it is pasted back, so that it stays as it was to the pixel. Connect a GUIDER, "
                        "or a MODEL with positive and negative.",
            inputs=[io.Latent.Input("latent", tooltip="From Apply PGPIS or PGPIS Guider: size and number of the pictures."),
                    io.Vae.Input("vae", tooltip="Encodes the reference and decodes the result."),
                    io.Image.Input("reference", tooltip="Picture(s) to keep outside the mask, of any size."),
                    io.Mask.Input("mask", tooltip="(B, H, W), white is made anew, black is kept: all white is plain "
                                  "sampling, all black gives the reference back. Garment Mask makes one by name."),
                    io.Float.Input("feather", default=FEATHER, min=0.0, max=0.5, step=0.005, tooltip="Breadth over which "
                                   "new fades into kept at the mask's edge, as a share of the reference's shorter side."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="Seed of the noise."),
                    io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Sampling steps."),
                    io.Float.Input("cfg", default=2.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance weight with MODEL, "
                                   "positive and negative; a GUIDER has its own."),
                    io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES, default="euler",
                                   tooltip="The host's sampler."),
                    io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, default="normal",
                                   tooltip="The host's noise schedule."),
                    io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                                   tooltip="1 makes the masked part from noise alone, less keeps some of the reference."),
                    io.Guider.Input("guider", optional=True, tooltip="From PGPIS Guider or any guider of the host."),
                    io.Model.Input("model", optional=True, tooltip="From Apply PGPIS, when no GUIDER is connected."),
                    io.Conditioning.Input("positive", optional=True, tooltip="From Apply PGPIS, with MODEL."),
                    io.Conditioning.Input("negative", optional=True, tooltip="From Apply PGPIS, with MODEL."),
                    io.Float.Input("grow", default=GROW, min=-0.5, max=0.5, step=0.005, optional=True, tooltip="How far the "
                                   "mask grows on all sides before it fades, as a share of the reference's shorter side; "
                                   "below 0 it shrinks, at 0 nothing outside the mask changes."),
                    io.Combo.Input("fade", options=list(FADES), default=FADES[0], optional=True, tooltip="Where the feather "
                                   "lies: inside the grown mask, beyond which nothing changes, or outside, so that all of "
                                   "the grown mask is new.")],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The sampled latents, before pasting."),
                     io.Image.Output(display_name="image", tooltip="The decoded pictures with the kept part pasted back, at "
                                     "the reference's size.")])

    @classmethod
    def execute(cls, latent, vae, reference, mask, feather, seed, steps, cfg, sampler_name, scheduler, denoise, guider=None,
                model=None, positive=None, negative=None, grow=GROW, fade=FADES[0]) -> io.NodeOutput:
        guider = _guider(guider, model, positive, negative, cfg)
        samples = latent["samples"]
        count, size = samples.shape[0], (samples.shape[-2] * 8, samples.shape[-1] * 8)
        kept = matched(count, rgb(reference, "the reference IMAGE"), "the reference IMAGE")
        side = min(kept.shape[-2:])
        (rows, columns), (height, width) = mask.shape[-2:], kept.shape[-2:]
        if abs(rows * width / (columns * height) - 1) > SHAPE:
            notice(f"The mask has {rows}x{columns} pixels (height x width), the reference {height}x{width}: the mask is of "
                   "another shape, and is stretched. Draw it on this picture.")
        soft = feathered(mask, (height, width), feather * side, grow * side, fade)
        soft = matched(count, soft, "the MASK")  # (B, 1, H, W)
        start = vae.encode(as_image(resized(kept, size)))
        if not soft.any():
            notice("The mask is black everywhere: the reference comes back as it is.")
            return io.NodeOutput({**latent, "samples": start}, as_image(kept))
        if tuple(start.shape) != tuple(samples.shape):
            raise ValueError(f"the VAE made latents of {tuple(start.shape)}, the LATENT has {tuple(samples.shape)}; "
                             "expected the same. Connect the VAE of this MODEL")
        noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))
        model = guider.model_patcher
        sigmas = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise,
                                         model.model_options).sigmas
        if denoise == 1:   # under a white mask sampling is plain: nothing of the reference shines through the noise
            start = torch.where((soft >= 1).flatten(1).all(1).to(start.device).view(-1, 1, 1, 1), 0, start)
        sampled = guider.sample(noise, start, comfy.samplers.sampler_object(sampler_name), sigmas, denoise_mask=soft,
                                callback=latent_preview.prepare_callback(model, max(1, sigmas.shape[-1] - 1)),
                                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=seed)
        sampled = sampled.to(comfy.model_management.intermediate_device())
        made = resized(vae.decode(sampled).float().movedim(-1, 1).clamp(0, 1), tuple(kept.shape[-2:]))
        return io.NodeOutput({**latent, "samples": sampled}, as_image(paste(made, kept, soft)))


def _guider(guider, model, positive, negative, cfg: float) -> comfy.samplers.CFGGuider:
    given = {"model": model, "positive": positive, "negative": negative}
    connected = [name for name, value in given.items() if value is not None]
    if guider is not None and not connected:
        return guider
    if guider is not None or len(connected) < 3:
        have = (["guider"] if guider is not None else []) + connected
        raise ValueError(f"Masked Sampler has {have or 'nothing'} connected; expected either a guider alone, or model, "
                         "positive and negative. Connect the one or the other")
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


NODES = [Apply, GuiderNode, MaskedSampler]
