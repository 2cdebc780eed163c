"""What a method's injections cost per sampling step in ComfyUI: the same UNet and batch with and without them, interleaved.

    COMFYUI_PATH=~/comfy/ComfyUI python benchmarks/sampling.py [--method mcld] [--json FILE] [--device cuda] [--rounds 15]

MCLD is held against a UNet whose self-attention has twice the keys as well, since that work belongs to the method.

Weights are random, since time does not depend on them. Each round times one step without and one with the pack, in
alternating order; the ratio is the median over rounds of with / without, so that slow spells of the machine cancel. On a
CPU the process's own time is counted (it runs on one thread), so that other work on the machine does not. The bar is a
ratio of 1.15 at most; the exit status is 1 when it is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
BAR = 1.15
CASES = (  # name, width of the first level, heads, context width, latent (height, width), pictures
    ("demo", (64, 64, 64, 64), 2, 64, (16, 12), 1),
    ("demo 256x192", (64, 64, 64, 64), 2, 64, (32, 24), 1),
    ("128 wide", (128, 256, 512, 512), 8, 256, (32, 24), 1),
)
FULL_SIZE = (
    ("SD1.5", (320, 640, 1280, 1280), 8, 768, (64, 64), 1),
    ("SD1.5, batch 8", (320, 640, 1280, 1280), 8, 768, (64, 64), 8),
)


def start_host(device: str) -> None:
    """Imports ComfyUI's libraries (no server) and this pack as the package `pgpis_pack`."""
    comfy = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (comfy / "comfy" / "sd.py").is_file():
        raise SystemExit(f"no ComfyUI at {comfy}; set COMFYUI_PATH to a ComfyUI folder")
    sys.argv = ["main.py", "--use-pytorch-cross-attention"] + (["--cpu"] if device == "cpu" else [])
    sys.path.insert(0, str(comfy))
    import comfy.options
    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location("pgpis_pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    sys.modules["pgpis_pack"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def build(widths, heads, context, dtype):
    """A MODEL of these sizes with random weights."""
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models
    import torch
    from pgpis_pack.nodes.loaders import unet_config
    from pgpis_pack.pgpis_models.unet.base import BaseSizes
    config = comfy.supported_models.SD15(unet_config(BaseSizes(widths, heads=heads, cross_attention_dim=context)))
    config.unet_config["num_heads"] = heads
    config.set_inference_dtype(dtype, None)
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS)
    for value in model.diffusion_model.parameters():
        torch.nn.init.normal_(value, std=0.02)
    return comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())


def injections(widths, context, latent, pictures):
    """CFLD's two ends, nothing and everything: (rows, replaced weights)."""
    import torch
    from pgpis_pack.pgpis_models.unet.injections import Injections, everywhere, harmonise
    from pgpis_pack.pgpis_models.unet.sites import SITES
    h, w = latent
    grids = [(-(-h // 2**level), -(-w // 2**level)) for level in range(4)]
    ups = {name: site for name, site in SITES.items() if site.stage == "up"}
    biases = {name: torch.randn(pictures, grids[site.level][0] * grids[site.level][1], widths[site.level])
              for name, site in ups.items()}
    poses = tuple(torch.randn(pictures, widths[level], *grids[level]) for level in range(3))
    weights = {f"{site.diffusers}.transformer_blocks.0.attn2.{which}.weight": 0.02 * torch.randn(widths[site.level], context)
               for site in ups.values() for which in ("to_k", "to_v")}
    null = Injections(context=everywhere(torch.randn(1, 16, context)))
    full = Injections(context=everywhere(torch.randn(pictures, 16, context)), query_bias=biases, down_residuals=poses)
    return harmonise([null, full], pictures), weights


def injections_mcld(widths, context, latent, pictures):
    """MCLD's two terms: (rows, no replaced weights, which cost nothing per step)."""
    import torch
    from pgpis_pack.pgpis_models.unet.injections import ExtraAttention, Injections, harmonise
    from pgpis_pack.pgpis_models.unet.sites import SITES
    h, w = latent
    tokens = {name: -(-h // 2**site.level) * -(-w // 2**site.level) for name, site in SITES.items()}
    faces = {name: ExtraAttention(torch.randn(pictures, 16, context), 0.02 * torch.randn(widths[site.level], context),
                                  0.02 * torch.randn(widths[site.level], context), 0.5) for name, site in SITES.items()}
    common = {"context": {stage: torch.randn(pictures, count, context) for stage, count in
                          (("down", 1), ("mid", 2), ("up", 1))},
              "extra_attention": faces, "stem": torch.randn(pictures, widths[0], h, w)}
    reference = {name: torch.randn(pictures, tokens[name], widths[site.level]) for name, site in SITES.items()}
    return harmonise([Injections(**common), Injections(**common, self_reference=reference)], pictures), {}


def doubled_keys(hidden, keys, values, _options):
    """attn1 patch: every row's own tokens twice."""
    import torch
    return hidden, torch.cat([keys, keys], 1), torch.cat([values, values], 1)


class Steps:
    """In place of a sampler: calls the model `count` times at one noise level and keeps the time of each call."""

    def __init__(self, count: int) -> None:
        self.count, self.seconds = count, []

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
        import torch
        wait, clock = (torch.cuda.synchronize, time.perf_counter) if noise.is_cuda else (lambda: None, time.process_time)
        for index in range(self.count):
            wait()
            start = clock()
            model_wrap(noise, sigmas[:1].expand(noise.shape[0]), model_options=extra_args["model_options"], seed=0)
            wait()
            if index:  # the first call warms up: weights were just patched
                self.seconds.append(clock() - start)
        return noise


def measure(case, dtype, rounds: int, method: str = "cfld") -> dict:
    """Median seconds of a step without and with the pack, and the median of their ratio round by round."""
    import comfy.samplers
    import torch
    from pgpis_pack.nodes.binding.model import apply_injections, conditionings
    name, widths, heads, context, latent, pictures = case
    model = build(widths, heads, context, dtype)
    make = {"cfld": injections, "mcld": injections_mcld}[method]
    rows, weights = make(widths, context, latent, pictures)
    bare = model
    if method == "mcld":
        bare = model.clone()
        bare.set_model_attn1_patch(doubled_keys)
    negative, positive = conditionings(rows, latent)
    plain = [[[tokens, {}] for tokens, _ in cond] for cond in (positive, negative)]
    sides = {"without": (bare, *plain), "with": (apply_injections(model, rows, weights), positive, negative)}
    noise = torch.randn(pictures, 4, *latent)
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    with torch.inference_mode():
        for number in range(rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                patched, *conds = sides[side]
                guider, steps = comfy.samplers.CFGGuider(patched), Steps(4)
                guider.set_conds(*conds)
                guider.set_cfg(2.0)
                guider.sample(noise, torch.zeros_like(noise), steps, torch.tensor([5.0, 0.0]), disable_pbar=True)
                seconds[side].append(statistics.median(steps.seconds))
    ratios = [b / a for a, b in zip(seconds["without"], seconds["with"], strict=True)]
    return {"name": name, "without": statistics.median(seconds["without"]), "with": statistics.median(seconds["with"]),
            "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            "latent": list(latent), "widths": list(widths), "pictures": pictures}


def main() -> int:
    """Exit status: 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--method", choices=("cfld", "mcld"), default="cfld")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=None, help="cuda when there is one")
    parser.add_argument("--dtype", choices=("float32", "float16"), default=None, help="float16 on cuda, float32 on cpu")
    parser.add_argument("--rounds", type=int, default=15, help="paired rounds per case")
    parser.add_argument("--full", action="store_true", help="also the full SD1.5 width (slow on a CPU)")
    arguments = parser.parse_args()
    import torch
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype or ("float16" if device == "cuda" else "float32"))
    if device == "cpu":
        torch.set_num_threads(1)
    start_host(device)
    import comfyui_version
    settings = {"device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
                "threads": torch.get_num_threads(), "dtype": str(dtype).removeprefix("torch."),
                "clock": "wall" if device == "cuda" else "cpu time", "rounds": arguments.rounds,
                "terms": 2, "method": arguments.method}
    versions = {"torch": torch.__version__, "comfyui": comfyui_version.__version__, "python": platform.python_version()}
    rows, missed = [], False
    print(f"{'case':<16} {'without ms':>10} {'with ms':>9} {'ratio':>6}  range        bar {BAR}")
    for case in CASES + (FULL_SIZE if arguments.full else ()):
        found = measure(case, dtype, arguments.rounds, arguments.method)
        missed |= found["ratio"] > BAR
        shape = {key: found[key] for key in ("latent", "widths", "pictures")}
        print(f"{found['name']:<16} {found['without'] * 1e3:>10.1f} {found['with'] * 1e3:>9.1f} {found['ratio']:>6.3f}  "
              f"{found['low']:.2f}..{found['high']:.2f}   {'met' if found['ratio'] <= BAR else 'MISSED'}", flush=True)
        for key, unit in (("without", "s/step"), ("with", "s/step"), ("ratio", "with/without")):
            rows.append({"name": f"sampling step, {found['name']}, {key}", "value": found[key], "unit": unit,
                         "settings": settings | shape | ({"bar": BAR} if key == "ratio" else {}), "versions": versions})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
