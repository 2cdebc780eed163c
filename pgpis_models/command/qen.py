"""What the command line reads for QEN beside photo and pose: how its control branch acts, and a region of its own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..files.pictures import open_mask
from .flags import refuse

FLAGS = ("strength", "start", "end", "mask")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--strength, --start, --end and --mask."""
    parser.add_argument("--strength", type=float, default=None, help="QEN: of the control branch; default 1")
    parser.add_argument("--start", type=float, default=None, help="QEN: share of the steps after which it begins; default 0")
    parser.add_argument("--end", type=float, default=None, help="QEN: share of the steps after which it ends; default 1")
    parser.add_argument("--mask", type=Path, default=None, help="with --donor: picture of the photo's shape, white "
                        "where it is made anew; without, QEN: white where the pose's region is, default drawn from the pose")


def control_of(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """Extras of the generator from the flags that were given. Raises ValueError where the method is not QEN."""
    own = FLAGS if options.donor is None else FLAGS[:-1]   # with a donor a mask is where the donor's appearance goes
    given = {name: value for name in own if (value := getattr(options, name)) is not None}
    if method != "qen":
        swap = ", or --donor, whose appearance goes where --mask is white" if "mask" in given else ""
        refuse(options, own, f"came with a checkpoint of {method}; expected one of qen, whose control branch they set"
               f"{swap}. Leave them out")
    if "mask" in given:
        given["mask"] = torch.from_numpy(open_mask(given["mask"]))[None, None]
    return given
