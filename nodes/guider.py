"""The host's guider for a chain of guidance terms: all terms of a step run as one batched UNet call."""

from __future__ import annotations

import comfy.samplers
from torch import Tensor

from ..pgpis_models.guidance import Guidance


class ChainGuider(comfy.samplers.CFGGuider):
    """eps = term_0 + sum_k w_k (term_k - term_before), on the host's denoised predictions.

    The weights of a chain sum to 1, so that the chain may be applied to x0 as well as to eps. The last term is the
    host's "positive" and the first its "negative", which other packs look for.
    """

    def set_chain(self, guidance: Guidance, conds: list[list]) -> None:
        """conds: one CONDITIONING per term of the chain, in its order."""
        if len(conds) != len(guidance.terms):
            raise ValueError(f"{len(conds)} conditionings for {len(guidance.terms)} guidance terms")
        last = len(conds) - 1
        names = ["positive" if index == last else "negative" if index == 0 else term.name
                 for index, term in enumerate(guidance.terms)]
        self.guidance, self.names = guidance, names
        self.inner_set_conds(dict(zip(names, conds, strict=True)))

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None,
                      seed: int | None = None) -> Tensor:
        """The guided denoised prediction (B, C, H, W) for one step."""
        model_options = model_options or {}
        order = list(reversed(self.names))  # positive first, as in the host's own guider
        conds = {name: self.conds[name] for name in order}
        found = comfy.samplers.calc_cond_batch(self.inner_model, list(conds.values()), x, timestep, model_options)
        predictions = dict(zip(order, found, strict=True))
        result = self.guidance.combine([predictions[name] for name in self.names])
        for function in model_options.get("sampler_post_cfg_function", []):
            result = function({
                "denoised": result, "cond": conds["positive"], "uncond": conds.get("negative"), "cond_scale": self.cfg,
                "model": self.inner_model, "uncond_denoised": predictions.get("negative"),
                "cond_denoised": predictions["positive"], "sigma": timestep, "model_options": model_options, "input": x})
        return result
