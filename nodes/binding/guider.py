"""The host's guider for a chain of guidance terms: all terms of a step run as one batched UNet call."""

from __future__ import annotations

import logging

import comfy.samplers
from torch import Tensor

from ...pgpis_models.unet.guidance import Guidance

# What a MODEL may carry for chains of two terms: RescaleCFG and its kind work on one difference of two predictions.
TWO_TERM_PATCHES = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_calc_cond_batch_function")

log = logging.getLogger(__name__)


class ChainGuider(comfy.samplers.CFGGuider):
    """eps = term_0 + sum_k w_k (term_k - term_before), on the host's denoised predictions.

    The weights of a chain sum to 1, so that the chain may be applied to x0 as well as to eps. The last term is the
    host's "positive" and the first its "negative", which other packs look for. Terms that weigh nothing are not run, but
    where a sampler (the cfg_pp ones) or a patch asks for the negative's prediction too. A chain that comes down to two terms
    is the host's own guidance with all its patches; one of three has the patches on the result alone.
    """

    interval = (0.0, 1.0)

    def set_chain(self, guidance: Guidance, conds: list[list]) -> None:
        """conds: one CONDITIONING per term of the chain, in its order."""
        if len(conds) != len(guidance.terms):
            raise ValueError(f"{len(conds)} conditionings for {len(guidance.terms)} guidance terms")
        last = len(conds) - 1
        self.guidance, self.needed = guidance, guidance.needed()
        self.names = {term.name: "positive" if index == last else "negative" if index == 0 else term.name
                      for index, term in enumerate(guidance.terms)}
        self.set_cfg(self.needed.terms[-1].weight)
        self.inner_set_conds(dict(zip(self.names.values(), conds, strict=True)))

    def set_interval(self, start: float, end: float) -> None:
        """The shares of the sampling, 0 to 1, between which the weights act; outside the last term runs alone."""
        self.interval = (start, end)

    def _guides(self, timestep: Tensor) -> bool:
        """Whether this step lies in the guidance interval, counted in per cent as the host does."""
        if self.interval == (0.0, 1.0):
            return True
        start, end = (self.inner_model.model_sampling.percent_to_sigma(share) for share in self.interval)
        return self.interval[0] < self.interval[1] and end <= float(timestep[0]) <= start

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None,
                      seed: int | None = None) -> Tensor:
        """The guided denoised prediction (B, C, H, W) for one step."""
        model_options, chain = model_options or {}, self.needed
        if not self._guides(timestep):   # weight 1 is the last term alone, but for samplers that ask for the first too
            ends = [self.conds[self.names[self.guidance.terms[index].name]] for index in (0, -1)]
            return comfy.samplers.sampling_function(self.inner_model, x, timestep, *ends, 1.0, model_options=model_options,
                                                    seed=seed)
        if len(chain.terms) == 1 and model_options.get("disable_cfg1_optimization"):
            chain = self.guidance
        names = [self.names[term.name] for term in chain.terms]
        conds = {name: self.conds[name] for name in reversed(names)}   # positive first, as in the host's own guider
        if len(names) <= 2:
            weight = chain.terms[-1].weight if len(names) == 2 else 1.0
            return comfy.samplers.sampling_function(self.inner_model, x, timestep, conds[names[0]], conds[names[-1]], weight,
                                                    model_options=model_options, seed=seed)
        self._complain(model_options)
        found = comfy.samplers.calc_cond_batch(self.inner_model, list(conds.values()), x, timestep, model_options)
        predictions = dict(zip(conds, found, strict=True))
        result = chain.combine([predictions[name] for name in names])
        for function in model_options.get("sampler_post_cfg_function", []):
            result = function({
                "denoised": result, "cond": conds[names[-1]], "uncond": conds[names[0]], "cond_scale": self.cfg,
                "model": self.inner_model, "uncond_denoised": predictions[names[0]],
                "cond_denoised": predictions[names[-1]], "sigma": timestep, "model_options": model_options, "input": x})
        return result

    def _complain(self, model_options: dict) -> None:
        """Once per guider, of patches that a chain of three terms has no use for."""
        given = [name for name in TWO_TERM_PATCHES if model_options.get(name)]
        if given and not getattr(self, "_complained", False):
            self._complained = True
            log.warning("The MODEL carries %s, which works on two terms; PGPIS Guider runs %d here and leaves it out. Give "
                        "its weights the same value, or use Apply PGPIS with the host's own guidance.", ", ".join(given),
                        len(self.needed.terms))
