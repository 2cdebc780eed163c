"""Applies injections to the host's native MODEL, the counterpart of `pgpis_models.unet.diffusers_binding`.

`conditionings` puts the rows of each guidance term into a CONDITIONING, where the host keeps them in the order of the
batch that it runs, however it splits it. `apply_injections` gives a MODEL whose UNet reads them; with any other
CONDITIONING that MODEL runs as it was. Only the host's public patch points are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import comfy.conds
import comfy.model_patcher
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...pgpis_models.unet.attention import lookup
from ...pgpis_models.unet.fitting import fitted_rows, resized_map
from ...pgpis_models.unet.injections import Rows
from ...pgpis_models.unet.sites import DOWN_BLOCK_SLOTS, SITES, SKIP_COUNT, STEM_SLOT, Site, sites_of
from .attention import KEY, Call, CrossAttention, Replacement, SelfAttention, append_reference, call_of, replace_context
from .control import check_control, control_object
from .finite import check_inputs, check_result
from .passport import CARRIED, PASSPORT, PREFIX, Origin, Passport, check_aspect, check_origin, guards
from .rows import RowsCond, for_run
from .span import leave_the_edge, warn_of_swap
from .weights import check_widths, replace_weights

# --- CONDITIONING -------------------------------------------------------------------------------------------

def conditionings(rows: Rows, latent_size: tuple[int, int], origin: Origin = Origin()) -> list[list]:
    """One CONDITIONING per term of the rows, for latents of the shape of `latent_size` (height, width).

    origin: the checkpoint that they are of, without which no MODEL will run them.

    Context that is the same at all sites travels as the CONDITIONING's own tokens (the host's stock path); otherwise
    the tokens are those of the down stage, which a user's ControlNet sees, and each site gets its own.

    Raises ValueError when no context is given: the host's UNet cannot run without one.
    """
    shared = _shared_context(rows)
    passport = Passport(tuple(latent_size), origin)
    # The same object for all terms, so that the host batches them; control_on says which rows it is for.
    control = {"control": control_object(rows.control), "control_apply_to_uncond": False} if rows.control else {}
    result = []
    for term in rows.terms:
        tokens = lookup(term, "context", "down.0.0", "down")
        if tokens is None:
            tokens = next((value for name, value in term.items() if name.startswith("context.")), None)
        if tokens is None:
            raise ValueError("these injections have no context; expected tokens for the UNet's cross-attention")
        carried = {PREFIX + name: RowsCond(value) for name, value in term.items()
                   if not (shared and name.startswith("context."))}
        carried[PASSPORT] = comfy.conds.CONDConstant(passport)
        result.append([[tokens, {"model_conds": carried, "hooks": guards(origin), **control}]])
    return result


def _shared_context(rows: Rows) -> bool:
    for term in rows.terms:
        found = [lookup(term, "context", site.name, site.stage) for site in SITES.values()]
        if any(tokens is None or tokens.shape != found[0].shape for tokens in found):
            return False
        if not all(torch.equal(tokens, found[0]) for tokens in found):
            return False
    return True


# --- MODEL --------------------------------------------------------------------------------------------------

def apply_injections(model: comfy.model_patcher.ModelPatcher, rows: Rows, unet_weights: Mapping[str, Tensor],
                     method: str = Origin.name, digest: str = Origin.digest) -> comfy.model_patcher.ModelPatcher:
    """A clone of the MODEL that reads rows like these and runs with the replaced weights.

    rows: decide at which sites the attention is replaced. unet_weights: diffusers parameter name -> tensor. method,
    digest: of the checkpoint, as of `Origin`.

    LoRAs loaded before or after add to the replaced weights. An attention replacement that a block already has is
    kept and called inside ours. A second application, of the same weights, adds nothing twice. Raises ValueError when
    rows or weights do not fit the MODEL.
    """
    check_widths(model, rows.terms[0], method)
    if rows.control:
        check_control(model, rows.control, method)
    model = model.clone()
    replace_weights(model, unet_weights, method)
    if not model.get_wrappers(WrappersMP.DIFFUSION_MODEL, KEY):
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, _run_unet)
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, _load_rows)
        model.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _own_replacements)
        model.set_model_input_block_patch(_add_to_input_block)
        model.set_model_emb_patch(_add_to_time_embedding)
        model.set_model_attn2_patch(replace_context)
        model.set_model_attn1_patch(append_reference)
    options = model.model_options["transformer_options"]
    options[CARRIED] = {**options.get(CARRIED, {}), digest: method}
    names = rows.terms[0]
    cross = {site for name in names if name.startswith(("query_bias.", "extra_scale.", "context_count."))
             for site in sites_of(name.split(".", 1)[1])}
    reference = {name.split(".", 1)[1] for name in names if name.startswith("self_reference.")}
    for site in SITES.values():
        if site.name in cross:
            install(model, "attn2", site, CrossAttention)
        if site.name in reference:
            install(model, "attn1", site, SelfAttention)
    return model


def install(model: comfy.model_patcher.ModelPatcher, which: str, site: Site, kind: type[Replacement]) -> None:
    """Puts our replacement on a block, around the one that the host would have run there."""
    patches = model.model_options["transformer_options"].get("patches_replace", {}).get(which, {})
    kind_name, number = site.host
    index = 0 if (kind_name, number, 0) in patches else None  # the host looks for the longer key first
    previous = patches.get(site.host if index is None else (*site.host, index))
    if isinstance(previous, kind):
        return
    model.set_model_patch_replace(kind(site, previous), which, kind_name, number, index)


def _own_replacements(model: comfy.model_patcher.ModelPatcher, clone: comfy.model_patcher.ModelPatcher) -> None:
    """ON_CLONE callback: replacements of the clone's own. From 0.14 on the host's clones share objects, so that what an
    adapter adds to ours on its clone would reach the MODEL that it was cloned from."""
    for patches in clone.model_options["transformer_options"].get("patches_replace", {}).values():
        patches.update({key: patch.copied() for key, patch in patches.items() if isinstance(patch, Replacement)})


# --- one UNet call ------------------------------------------------------------------------------------------

def _run_unet(executor: Callable, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None,
              control: dict | None = None, transformer_options: dict | None = None, **kwargs) -> Tensor:
    """DIFFUSION_MODEL wrapper: takes our tensors from the arguments of the UNet and shows them to the patches."""
    options = transformer_options or {}
    ours = {name.removeprefix(PREFIX): kwargs.pop(name) for name in list(kwargs) if name.startswith(PREFIX)}
    if not ours:
        return executor(x, timesteps, context, y, control, options, **kwargs)
    passport, size = ours.pop("passport"), (x.shape[-2], x.shape[-1])
    check_origin(passport.origin, options)
    check_aspect(size, passport)
    call = Call(fitted_rows(ours, size), size, _reference_rows(ours), control, _reference_parts(ours))
    out = executor(x, timesteps, context, y, control, {**options, KEY: call}, **kwargs)
    _check_served(call, options)
    return out


def _check_served(call: Call, options: dict) -> None:
    """Another node may have put its own replacement over ours, which would drop injections without a word."""
    lost = sorted(call.visited - call.served)
    if lost:
        installed = options.get("patches_replace", {})
        over = sorted({type(installed[which][key]).__name__ for which, name in lost
                       for key in (SITES[name].host, (*SITES[name].host, 0)) if key in installed.get(which, {})})
        raise ValueError(f"attention ran without its PGPIS injections at {lost}: replaced by {over or 'nothing'}. Put Apply "
                         "PGPIS after the node that patches the MODEL, and use its CONDITIONING with its own MODEL")


def _reference_rows(rows: dict[str, Tensor]) -> list[int] | None:
    on = rows.get("self_reference_on")
    if on is None or bool(on.all()):
        return None
    return on.nonzero().flatten().tolist()


def _reference_parts(rows: dict[str, Tensor]) -> int:
    on = rows.get("self_reference_on")
    found = [1] if on is None else on[on > 0].unique().tolist() or [1]
    if len(found) > 1:
        raise ValueError(f"reference features of {' and '.join(map(str, found))} photos in one call; expected one number "
                         "for all CONDITIONING that is sampled together. Take as many photos for each of them")
    return found[0]


def _add_to_input_block(h: Tensor, transformer_options: dict) -> Tensor:
    """input_block patch: stem after conv_in, residuals at the end of down blocks, in the skip as well; all at the size that
    the block has here, which other nodes change (deep shrink)."""
    call = call_of(transformer_options)
    if call is None:
        return h
    slot = transformer_options["block"][1]
    _fit_control(call.control, slot, h)
    if slot == STEM_SLOT:
        value = call.rows.get("stem")
    elif slot in DOWN_BLOCK_SLOTS:
        value = call.rows.get(f"down_residual.{DOWN_BLOCK_SLOTS.index(slot)}")
    else:
        value = None
    return h if value is None else h + resized_map(value, tuple(h.shape[-2:])).to(h.dtype)


def _fit_control(control: dict | None, slot: int, h: Tensor) -> None:
    """Control residuals for the skip of this input block, at its size: the host drops those of another size."""
    skips = (control or {}).get("output", ())
    if len(skips) == SKIP_COUNT and skips[slot] is not None:
        skips[slot] = resized_map(skips[slot], tuple(h.shape[-2:]))
    middle = (control or {}).get("middle", ())
    if slot == SKIP_COUNT - 1 and len(middle) and middle[-1] is not None:
        middle[-1] = resized_map(middle[-1], tuple(h.shape[-2:]))


def _add_to_time_embedding(emb: Tensor, model_channels: int, transformer_options: dict) -> Tensor:
    """emb patch: (R, D) added to the timestep embedding."""
    call = call_of(transformer_options)
    value = None if call is None else call.rows.get("time_embedding")
    return emb if value is None else emb + value.to(emb.dtype)


# --- once per generation ------------------------------------------------------------------------------------

def _load_rows(executor: Callable, guider: object, sigmas: Tensor, extra_args: dict, callback: Callable | None,
               noise: Tensor, latent_image: Tensor | None = None, denoise_mask: Tensor | None = None, *args,
               **kwargs) -> Tensor:
    """SAMPLER_SAMPLE wrapper: brings the rows to the number and size of the latents and to the sampling device, once
    instead of once per step, and sees that what goes in and comes out are numbers.

    Only the guider's own list for this run is changed; CONDITIONING of the graph stays on the CPU.
    """
    model = getattr(guider, "inner_model", None)
    conds = getattr(guider, "conds", None)
    if model is not None and conds:
        dtype = model.manual_cast_dtype or model.get_dtype()
        warn_of_swap(conds)
        for cond in (cond for several in conds.values() for cond in several or ()):
            leave_the_edge(cond)
            held = cond.get("model_conds", {})
            if PASSPORT in held:
                held = for_run(held, noise, extra_args.get("seed"), "area" not in cond)
                cond["model_conds"] = {name: _loaded(name, value, guider.model_patcher.load_device, dtype)
                                       for name, value in held.items()}
    check_inputs(noise=noise, latent_image=latent_image, noise_mask=denoise_mask)
    samples = executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs)
    if model is not None:
        check_result(samples, model)
    return samples


def _loaded(name: str, value: object, device: torch.device, dtype: torch.dtype) -> object:
    if not name.startswith(PREFIX) or name == PASSPORT:
        return value
    tensor = value.cond
    return RowsCond(tensor.to(device, dtype if tensor.is_floating_point() else None))
