"""Makes what MCLD needs beside each photo: DensePose, texture map and face embedding (see training/data/focal.py).

    python training/prepare_mcld.py --root DATA --densepose densepose_r101_fpn_dl.torchscript --insightface FOLDER

DATA has {train,test}_highres, as training/prepare.py makes it. Runs again where it stopped: what is there stays, and no file
is ever half written. A photo without a person gets no files and a line in {split}_nobody.txt, and its pairs are left out;
one without a face gets no embedding, which training takes as the method's zero input.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.surface.densepose import IUV, NobodyFound, estimate, load_model  # noqa: E402
from pgpis_models.surface.face import crop, find_face, load_app  # noqa: E402
from pgpis_models.surface.texture import warp  # noqa: E402
from training.data.deepfashion import PICTURE_SUFFIXES, open_picture  # noqa: E402
from training.data.face_boxes import Box, single_shot  # noqa: E402
from training.data.focal import NOBODY  # noqa: E402
from training.data.placing import whole, write_array, write_png  # noqa: E402

SPLITS = ("train", "test")
LISTED = 10
READ = ("photo", "box")   # of what the embedding is


def embedding(app: Any, photo: np.ndarray, read: str = "photo",
              detect: Callable[[np.ndarray], Box | None] | None = None) -> np.ndarray | None:
    """(512,) of the largest face in a photo (H, W, 3) uint8, or None where there is none. app: insightface's, or what
    `find_faces` takes. read: photo = found and embedded in the whole photo (MCLD's authors' code); box = the box around it,
    enlarged by 1.5 and made square as in the authors' demo, is cut out and embedded alone. detect: finds that box, the
    paper's single shot detector (section 4, `data.face_boxes`); insightface's own where None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # one line per photo without a face would drown the progress
        if read == "photo":
            face = find_face(app, photo)
        else:
            found = find_face(app, photo) if detect is None else None
            box = found.box if found else detect(photo) if detect else None
            face = None if box is None else find_face(app, crop(photo, box))
    return None if face is None else face.embedding


def prepare(root: Path, find_pose: Callable[[np.ndarray], IUV], find_embedding: Callable[[np.ndarray], np.ndarray | None],
            layout: str = "smpl") -> list[str]:
    """Writes {split}_densepose, _texture and _face below root; returns the photos in which nobody was found.

    Their names go to {split}_nobody.txt as well.

    find_pose: photo (H, W, 3) uint8 -> IUV, NobodyFound without a person. find_embedding: photo -> (512,) or None. Raises
    FileNotFoundError when there are no photos.
    """
    photos = [(split, path) for split in SPLITS for path in sorted((root / f"{split}_highres").glob("*"))
              if path.suffix.lower() in PICTURE_SUFFIXES]
    if not photos:
        raise FileNotFoundError(f"no photos in {root}/train_highres and {root}/test_highres; make them with "
                                "training/prepare.py first")
    nobody = []
    for split, path in tqdm(photos, desc="conditions", unit="photo"):
        pose, texture, face = (root / f"{split}_{kind}" / f"{path.stem}.{ending}" for kind, ending in
                               (("densepose", "png"), ("texture", "png"), ("face", "npy")))
        if pose.is_file() and texture.is_file():
            continue   # the embedding is written before them
        photo = np.array(open_picture(path))
        try:
            iuv = find_pose(photo)
        except NobodyFound:
            nobody.append(f"{split}_highres/{path.name}")
            continue
        embedding = find_embedding(photo)
        if embedding is not None:
            write_array(face, embedding)
        write_png(pose, iuv.to_picture("v,u,part"))
        write_png(texture, warp(photo, iuv, layout, "exact").picture)
    for split in SPLITS:   # training leaves out pairs with these photos
        names = [name.partition("/")[2] for name in nobody if name.startswith(f"{split}_")]
        whole(root / NOBODY.format(split), lambda part, names=names: part.write_text("".join(f"{n}\n" for n in names)))
    return nobody


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with train_highres and test_highres")
    parser.add_argument("--densepose", type=Path, required=True, help="public TorchScript model, r101 as the authors'")
    parser.add_argument("--insightface", type=Path, required=True, help="folder that holds models/antelopev2")
    parser.add_argument("--face", choices=READ, default=READ[0], help="what is embedded: the face in the whole photo, as "
                        "the authors' code, or the box around it alone, as the paper says")
    parser.add_argument("--ssd", type=Path, nargs=2, metavar=("CAFFEMODEL", "PROTOTXT"), help="with --face box: the box by "
                        "OpenCV's single shot detector, as the paper's; insightface's without (OpenCV 4 reads these files)")
    parser.add_argument("--device", default="cpu", help="of DensePose")
    options = parser.parse_args(arguments)
    try:
        if options.ssd and options.face != "box":
            raise ValueError(f"--ssd finds boxes, but --face is {options.face}; expected --face box")
        detect = single_shot(*options.ssd) if options.ssd else None
        model, app = load_model(options.densepose, options.device), load_app(options.insightface)
        nobody = prepare(options.root, lambda photo: estimate(model, photo, "best", device=options.device),
                         lambda photo: embedding(app, photo, options.face, detect))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if nobody:
        print(f"nobody found in {len(nobody)} photos, whose pairs are left out: {'; '.join(nobody[:LISTED])}"
              f"{'; ...' if len(nobody) > LISTED else ''} (all of them: {options.root}/*_nobody.txt)")


if __name__ == "__main__":
    main()
