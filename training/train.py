"""The one entry for training: `python training/train.py --config training/configs/X.yaml [key=value ...]`.

With no arguments it trains the demo's CFLD on whatever device there is. On several GPUs or machines:
`accelerate launch training/train.py --config ...`. Run it in the repository's root: relative paths, those of the shipped
configs too, are relative to the working folder.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script, without installing the pack
    sys.path.insert(0, str(ROOT))

from training.engine.config import TrainConfig, load_config  # noqa: E402

# name -> (module, class); imported when asked for
TASKS = {"autoencoder": ("training.world.autoencoder", "AutoencoderTask"), "base": ("training.world.base", "BaseTask"),
         "reader": ("training.world.reader", "ReaderTask"),
         "cfld": ("training.tasks.cfld", "CFLDTask"), "fpdm": ("training.tasks.fpdm", "FPDMTask"),
         "fpdm_fusion": ("training.tasks.fpdm_fusion", "FusionTask"),
         "qen": ("training.tasks.qen", "QENTask"),
         "mcld": ("training.tasks.mcld", "MCLDTask"),
         "distill": ("training.tasks.distill", "DistillTask")}


def task_class(name: str) -> type:
    """The class of a training task by its config name. Raises ValueError for unknown names."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    module, kind = TASKS[name]
    return getattr(import_module(module), kind)


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "training/configs/demo/cfld.yaml"),
                        help="YAML file; default: the demo's CFLD")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    options = parser.parse_args(arguments)
    try:
        config: TrainConfig = load_config(options.config, options.overrides)
        kind = task_class(config.task)
    except ValueError as error:
        parser.error(str(error))
    from training.engine.loop import run
    return run(config, kind)


if __name__ == "__main__":
    main()
