"""The preparing command, run in this process, and photos for it."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.prepare import main


def jpeg(path: Path, seed: int, size=(30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def prepared(capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    return code, out, err
