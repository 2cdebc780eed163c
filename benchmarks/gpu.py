"""A GPU in one command: how fast the methods sample and train there, against what the device and the bare UNet allow.

    python benchmarks/gpu.py [--json FILE] [--markdown FILE] [--only PART,PART] [--methods cfld,qen] [--minutes 7]

Full width, bf16, every weight random: nothing is downloaded. Parts, in the order in which they run:

sampling   per method at 512x352 and 256x176, batch 1, 4 and 16: a step over the bare UNet's step on as many rows; a whole
           generation (encode, 20 steps, decode) over 20 bare steps and the decoder; peak memory
training   images/s, share of the device's peak (MFU), peak memory; latents cached, and made in the step
profile    copies between host and device, and waits, in one sampling step and one training step
levers     channels_last and each attention kernel alone
texture    texture maps per second, on the CPU
compile    torch.compile of the UNet, ours and bare

What fails, and what the budget of minutes leaves no time for, becomes a row that says so; the files are written after every
piece. On a CPU, `--tiny --device cpu` runs everything at tiny width, to see that it works.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (str(HERE), str(HERE.parent)):   # this script's own parts, and the pack
    if folder not in sys.path:
        sys.path.insert(0, folder)

PARTS = ("sampling", "training", "profile", "levers", "texture", "compile")
METHODS = ("cfld", "mcld", "fpdm", "qen")
SIZES, BATCHES = ((512, 352), (256, 176)), (1, 4, 16)
LEVER_BATCH = 4


def several(known: tuple[str, ...]):
    """An argument type: names of `known`, separated by commas."""
    def read(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(f"{text!r}; expected some of {','.join(known)}")
        return tuple(name for name in known if name in names)
    return read


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--only", type=several(PARTS), default=PARTS, metavar="PART[,PART]", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--methods", type=several(METHODS), default=METHODS, metavar="METHOD[,METHOD]",
                        help=f"of {', '.join(METHODS)}")
    parser.add_argument("--minutes", type=float, default=7.0, help="budget; what is left when it is spent is skipped")
    parser.add_argument("--device", choices=("cuda", "cpu"), default=None, help="cuda when there is one")
    parser.add_argument("--tiny", action="store_true", help="tiny widths, sizes and batches, float32")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 1 when a piece failed."""
    chosen = parsed(arguments)
    import torch
    device = torch.device(chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("no CUDA device is to be had; run with --device cpu --tiny to see that the script works")
        torch.cuda.set_device(0)
        device = torch.device("cuda", 0)
        torch.set_float32_matmul_precision("high")   # as the training loop does
    else:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    from gpu_parts.timing import Report
    tiny, dtype = chosen.tiny, torch.float32 if chosen.tiny else torch.bfloat16
    report = Report(device, {"width": "tiny" if tiny else "full", "weights": "random"}, (chosen.json, chosen.markdown),
                    chosen.minutes)
    sizes, batches, lever = (((64, 48),), (2,), 1) if tiny else (SIZES, BATCHES, LEVER_BATCH)
    repeats, methods = 1 if tiny else 7, chosen.methods

    def part(name: str) -> None:
        from gpu_parts import levers, profiling, sampling, textures, training
        if name == "sampling":
            sampling.run(report, methods, sizes, batches, dtype, tiny, repeats)
        elif name == "training":
            training.run(report, methods, tiny, repeats)
        elif name == "profile":
            profiling.run(report, methods, sizes[0], dtype, tiny)
        elif name == "levers":
            levers.run(report, methods, sizes[0], lever, dtype, tiny, repeats)
        elif name == "texture":
            textures.run(report, sizes[0], tiny)
        else:
            levers.run_compile(report, methods, sizes[0], lever, dtype, tiny, repeats)
    for name in chosen.only:
        report.guarded(name, lambda: part(name))   # noqa: B023
    print("\n" + report.table())
    report.write()
    return int(any("error" in row["settings"] for row in report.rows))


if __name__ == "__main__":
    sys.exit(main())
