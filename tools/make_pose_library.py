"""Makes the library's data and thumbnails, web/pose_library/{poses.json,thumbnails.png}, of the poses in tools/pose_library.

    python tools/make_pose_library.py [--sheet FILE.png]

--sheet: a labelled picture of all poses, large enough to look at.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.body.camera import fitted  # noqa: E402
from pgpis_models.body.picture import draw, surface_points  # noqa: E402
from pgpis_models.body.state import State, from_dict  # noqa: E402
from tools.pose_library.angles import Entry  # noqa: E402
from tools.pose_library.moving import MOVING  # noqa: E402
from tools.pose_library.resting import RESTING  # noqa: E402
from tools.pose_library.standing import STANDING  # noqa: E402

FOLDER = ROOT / "web" / "pose_library"
SIZE = (512, 352)            # the canvas that the cameras are fitted to
LARGEST = 0.86               # picture heights per body height, so that a crouch does not fill the picture
CELL, COLUMNS = (64, 44), 12  # of a thumbnail, (H, W)
COLOURS = 32


def framed(entry: Entry) -> State:
    """The pose with a camera that shows it whole, as the text of the library rounds it."""
    state = from_dict(entry.state().to_dict())
    camera = fitted(state.camera, surface_points(state), SIZE)
    if camera.zoom > LARGEST:
        camera = replace(camera, zoom=LARGEST, x=camera.x * LARGEST / camera.zoom, y=camera.y * LARGEST / camera.zoom)
    return from_dict(replace(state, camera=camera).to_dict())


def picture(state: State, size: tuple[int, int]) -> Image.Image:
    """The shaded body at (H, W)."""
    return Image.fromarray(np.rint(draw(state, size).image * 255).astype(np.uint8))


def sheet(entries: list[Entry], states: list[State], size: tuple[int, int] = (256, 176), columns: int = 10) -> Image.Image:
    """All poses with their names."""
    page = Image.new("RGB", (columns * (size[1] + 4), -(-len(entries) // columns) * (size[0] + 18)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for number, (entry, state) in enumerate(zip(entries, states, strict=True)):
        x, y = number % columns * (size[1] + 4), number // columns * (size[0] + 18)
        page.paste(picture(state, size), (x, y + 14))
        pen.text((x + 2, y), entry.name, fill="black", font=font)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="writes a labelled picture of all poses there")
    arguments = parser.parse_args()
    entries = [*STANDING, *MOVING, *RESTING]
    states = [framed(entry) for entry in entries]
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = -(-len(entries) // COLUMNS)
    sprite = Image.new("RGB", (COLUMNS * CELL[1], rows * CELL[0]), "white")
    for number, state in enumerate(states):
        small = picture(state, (CELL[0] * 2, CELL[1] * 2)).resize(CELL[::-1], Image.Resampling.BOX)
        sprite.paste(small, (number % COLUMNS * CELL[1], number // COLUMNS * CELL[0]))
    sprite.quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / "thumbnails.png", optimize=True)
    lines = [json.dumps({"name": entry.name, "group": entry.group, "words": entry.words, "state": state.to_dict()},
                        separators=(",", ":")) for entry, state in zip(entries, states, strict=True)]
    (FOLDER / "poses.json").write_text(f'{{"cell":[{CELL[1]},{CELL[0]}],"columns":{COLUMNS},"poses":[\n'
                                       + ",\n".join(lines) + "\n]}\n")
    print(f"{len(entries)} poses, thumbnails {(FOLDER / 'thumbnails.png').stat().st_size / 1e3:.0f} kB, data "
          f"{(FOLDER / 'poses.json').stat().st_size / 1e3:.0f} kB")
    if arguments.sheet:
        sheet(entries, states).save(arguments.sheet)


if __name__ == "__main__":
    main()
