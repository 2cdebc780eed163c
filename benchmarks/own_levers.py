"""What levers of the pack's own gain, each alone, on random weights of full width or on the demo.

    python benchmarks/own_levers.py [--only contexts,bank,encoders,interval] [--size 256x176] [--tiny] [--json FILE]

contexts: the keys and values of what the UNet attends to and no step changes (tokens; MCLD's reference) are projected
anew at every step; their share of a step is the most that keeping them could save. bank: MCLD's reference features kept
in half precision, converted where they are read; memory of all rows, time of a step, and the largest difference of the
prediction. encoders: 8 poses of one photo that is encoded once, or with each. interval: guidance of the demo's QEN
between a fifth and four fifths of 16 steps, outside of them the last term alone; UNet rows, and the pictures against
those guided throughout. Wall clock, one thread of a CPU unless --threads says otherwise.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
for path in (str(HERE), str(HERE.parent)):   # the script beside, and the pack
    if path not in sys.path:
        sys.path.insert(0, path)

from gpu_parts.models import Bundle, bundle  # noqa: E402
from gpu_parts.sampling import sampler  # noqa: E402
from gpu_parts.timing import seconds  # noqa: E402
from second_pass import SOURCE, TARGET, as_tensor, view  # noqa: E402

from pgpis_models.noise.samplers import sample_latents  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from pgpis_models.unet.attention import lookup  # noqa: E402
from pgpis_models.unet.diffusers_binding import DiffusersBinding  # noqa: E402
from pgpis_models.unet.guidance import Guidance  # noqa: E402
from pgpis_models.unet.injections import harmonise  # noqa: E402
from pgpis_models.unet.sites import SITES  # noqa: E402
from training.world.measures import mask_overlap  # noqa: E402

POSES, STEPS, PEOPLE = 8, 16, 4
REPEATS = 2   # of a step, after one that is not counted: at full width a CPU takes many seconds
INTERVAL = (0.2, 0.8)
Row = tuple[str, float, str]


def attention(unet: nn.Module, site: str, which: str) -> nn.Module:
    return unet.get_submodule(f"{SITES[site].diffusers}.transformer_blocks.0.{which}")


def contexts(found: Bundle) -> list[Row]:
    """The projections of all constant tokens, over a step."""
    binding = DiffusersBinding(found.unet)
    one = sampler(found, binding, 1)
    x = one.x()
    with torch.no_grad():
        step = seconds(lambda: one.denoise(x, 500), found.device, REPEATS, warm=0)
        rows = harmonise([term.injections for term in found.guidance(found.inputs(1)).terms], 1).stacked()
    binding.release()

    def project(site: str, which: str, tokens: Tensor) -> None:
        layer = attention(found.unet, site, which)
        layer.to_k(tokens), layer.to_v(tokens)
    parts = {"context": [(site, "attn2", lookup(rows, "context", site, SITES[site].stage)) for site in SITES],
             "reference": [(site, "attn1", rows[f"self_reference.{site}"]) for site in SITES
                           if f"self_reference.{site}" in rows]}
    result = [(f"{found.name}, a step", step * 1e3, "ms")]
    for name, wanted in parts.items():
        if wanted:
            with torch.no_grad():
                taken = seconds(lambda: [project(*each) for each in wanted], found.device, 5, warm=1)   # noqa: B023
            result.append((f"{found.name}, keys and values of {name}, share of a step", taken / step, "share"))
    return result


def bank(found: Bundle) -> list[Row]:
    """The step with the reference's rows in half precision, over that with them as they are."""
    binding = DiffusersBinding(found.unet)
    guidance = found.guidance(found.inputs(1))
    half = Guidance(tuple(replace(term, injections=replace(term.injections, self_reference={
        site: tokens.half() for site, tokens in term.injections.self_reference.items()})) for term in guidance.terms))
    x, made, taken = torch.randn(1, 4, *found.latent, device=found.device, dtype=found.dtype), [], []
    for chain in (guidance, half):
        denoise = binding.denoiser(chain, 1)
        with torch.no_grad():
            taken.append(seconds(lambda: made.append(denoise(x, 500)), found.device, REPEATS, warm=0))   # noqa: B023
    binding.release()
    rows = harmonise([term.injections for term in guidance.terms], 1).stacked()
    held = sum(value.nbytes for name, value in rows.items() if name.startswith("self_reference."))
    return [("reference bank of one picture, all rows", held / 2 ** 20, "MiB"),
            ("reference bank in half, of a step with it as it is", taken[1] / taken[0], "ratio"),
            ("reference bank in half, difference over the largest value",
             float((made[-1] - made[0]).abs().max() / made[0].abs().max()), "share")]


def encoders(found: Bundle) -> list[Row]:
    """Encoding 8 poses with one photo, over encoding them with 8."""
    inputs = found.inputs(POSES)
    photo = inputs["source"][:1]
    poses = inputs["pose"]

    @torch.no_grad()
    def once() -> None:
        found.method.with_pose(found.method.encode_appearance(photo), poses)

    @torch.no_grad()
    def each() -> None:
        found.method.encode(inputs["source"], poses)
    taken = [seconds(call, found.device, REPEATS, warm=0) for call in (once, each)]
    return [(f"{found.name}, encoding {POSES} poses with a photo each", taken[1] / POSES * 1e3, "ms a picture"),
            (f"{found.name}, the same of one photo, encoded once", taken[0] / taken[1], "ratio")]


@torch.no_grad()
def interval(device: torch.device) -> list[Row]:
    """Rows of the UNet and pictures, with guidance between two shares of the steps, as PGPIS Guider has it."""
    generator = Generator(DEMO_FOLDER / "demo_qen.safetensors", device=device)
    drawn = [(view(number, SOURCE), view(number, TARGET)) for number in range(PEOPLE)]
    sources = torch.cat([generator.prepare(source.image) for source, _ in drawn])
    poses = [Keypoints(target.keypoints, target.detected, generator.picture_size) for _, target in drawn]
    encoded = generator.encoded(sources, poses)
    mode = generator.method.guidance_modes[0]
    scales = {name: generator.defaults["weights"][name] for name in generator.method.guidance_scales(mode)}
    chain = generator.method.guidance(encoded, mode, **scales)
    always = generator.binding.denoiser(chain, PEOPLE)
    alone = generator.binding.denoiser(Guidance(chain.terms[-1:]), PEOPLE)
    rows: list[int] = []
    hook = generator.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    steps = generator.schedule.steps

    def within(x: Tensor, t: int) -> Tensor:
        inside = INTERVAL[0] <= 1 - float(t) / steps <= INTERVAL[1]
        return (always if inside else alone)(x, t)

    def pictures(denoise: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, int]:
        rows.clear()
        latents = sample_latents(denoise, generator.schedule, (PEOPLE, 4, *generator.method.config.latent_size), steps=STEPS,
                                 spacing="trailing", device=device)
        return generator._decoded(latents).cpu(), sum(rows) // PEOPLE
    (plain, before), (made, after) = (pictures(denoise) for denoise in (always, within))
    hook.remove()
    truth = torch.stack([as_tensor(target.image) for _, target in drawn])
    error = (made - plain).double().square().mean((1, 2, 3))
    return [("UNet rows of a picture, guided throughout", before, "rows"), ("UNet rows within the interval", after, "rows"),
            ("interval, against the plain picture", float((-10 * error.log10()).mean()), "dB"),
            ("overlap with the true person, guided throughout", float(mask_overlap(plain, truth).mean()), ""),
            ("overlap within the interval", float(mask_overlap(made, truth).mean()), "")]


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="contexts,bank,encoders,interval")
    parser.add_argument("--size", default="256x176", help="of the pictures, height x width")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size, device = tuple(int(side) for side in options.size.split("x")), torch.device(options.device)
    wanted, rows = options.only.split(","), []

    def of(name: str, *levers: str) -> None:
        if {*levers} & {*wanted}:
            found = bundle(name, size, device, torch.float32, options.tiny)
            for lever in levers:
                if lever in wanted:
                    tell({"contexts": contexts, "bank": bank, "encoders": encoders}[lever](found))

    def tell(more: list[Row]) -> None:
        for name, value, unit in more:
            print(f"{name:<60} {value:10.4g} {unit}", flush=True)
        rows.extend(more)
    of("qen", "contexts", "encoders")
    of("mcld", "contexts", "bank")
    if "interval" in wanted:
        tell(interval(device))
    if options.json:
        told = {"settings": {"size": list(size), "tiny": options.tiny, "threads": options.threads, "device": options.device},
                "versions": {"torch": torch.__version__, "python": platform.python_version()}}
        options.json.write_text(json.dumps([{"name": name, "value": value, "unit": unit} | told
                                            for name, value, unit in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
