"""`generate --ray ADDRESS`: the pictures of a folder made by Ray Data, on as many machines and GPUs as a cluster has."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import read_metadata
from ..pipeline import DEMO_FOLDER
from .making import Maker, lacking
from .pairing import Pair

PACKAGE = Path(__file__).resolve().parents[1]
NAMED = re.compile(r"[\w.]+(Error|Exception): ")
BATCHES = 8   # of a worker's task: it reads and writes beside, and less is lost with it than with all of them


class Worker:
    """A `Maker` that Ray Data calls with the numbers of pairs."""

    def __init__(self, arguments: tuple, pairs: Sequence[Pair]) -> None:
        self.maker, self.pairs = Maker(*arguments), pairs

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """{"number": (N,)} -> the same, once their pictures are written."""
        self.maker.run(lacking([self.pairs[number] for number in batch["number"]]), lambda _count: None)
        return batch


def run(address: str, arguments: tuple, pairs: Sequence[Pair], done: Callable[[int], Any]) -> None:
    """Makes the pictures of the pairs. arguments: of `Maker`, with flags of `everywhere`; done: told how many are made.

    One worker for each GPU of the cluster, or for each machine with --device cpu. The pack is sent to the machines; files
    are not. Raises ImportError without Ray, ValueError for a cluster that is not there or has no GPU, and for what went
    wrong in a worker.
    """
    if not pairs:
        return
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f'--ray needs the package ray with its part data ({error}): pip install "ray[data]"') from error
    options = arguments[0]
    try:
        ray.init(address, include_dashboard=False if address == "local" else None, logging_level=logging.ERROR,
                 log_to_driver=False, runtime_env={"py_modules": [str(PACKAGE)]})
    except (ConnectionError, ValueError) as error:
        raise ValueError(f"--ray {address}: {error}") from error
    try:
        found = ray.cluster_resources()
        options.device = options.device or ("cuda" if found.get("GPU") else "cpu")
        machines, on_gpus = sum(node["Alive"] for node in ray.nodes()), options.device.startswith("cuda")
        if on_gpus and not found.get("GPU"):
            raise ValueError(f"--device is {options.device}, but the cluster has no GPU; expected --device cpu")
        count = int(found["GPU"]) if on_gpus else machines
        share = {"num_gpus": 1} if on_gpus else {"num_cpus": max(1, int(found.get("CPU", 1)) // machines)}
        ray.data.DataContext.get_current().enable_progress_bars = False   # the command has its own
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)   # an error is said below, in one line
        tasks = min(len(pairs), max(count, -(-len(pairs) // (options.batch * BATCHES))))
        numbers = ray.data.from_items([{"number": n} for n in range(len(pairs))], override_num_blocks=tasks)
        made = numbers.map_batches(Worker, fn_constructor_args=(arguments, pairs), batch_size=None,
                                   compute=ray.data.ActorPoolStrategy(size=count), **share)
        for rows in made.iter_batches(batch_size=None):
            done(len(rows["number"]))
    except ray.exceptions.RayError as error:
        raise ValueError(f"a worker of --ray {address} stopped: {said(error)}") from error
    finally:
        ray.shutdown()


def everywhere(options: argparse.Namespace) -> argparse.Namespace:
    """The flags as they hold on another machine, in another folder, where the demo's files are not beside the pack."""
    own = argparse.Namespace(**{name: value.absolute() if isinstance(value, Path) else value
                                for name, value in vars(options).items()})
    if not own.base and read_metadata(own.checkpoint).base == "demo":
        own.base, own.vae = DEMO_FOLDER / "demo_base.safetensors", own.vae or DEMO_FOLDER / "demo_vae.safetensors"
    for name in ("base", "vae", "lora"):
        setattr(own, name, getattr(own, name) and str(Path(getattr(own, name)).absolute()))
    return own


def said(error: Exception) -> str:
    """What went wrong in a worker, without the tracebacks and advice around it: the last line that names an error of others
    than Ray."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if NAMED.match(line) and not line.startswith("ray.")),
                (lines or [""])[0] or type(error).__name__)
