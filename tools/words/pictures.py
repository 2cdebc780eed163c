"""Pictures of small graphs, one for each node's help page: what feeds it, and what takes what it gives."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from pgpis_models.poses.by_hand import draw_people, standing
from tools.words.schemas import inputs_of

CANVAS = (256, 192)                  # (height, width) of the skeleton's picture
WIDTH, GAP, QUALITY = 760, 60, 70    # pixels of a picture; canvas units between columns; of the WebP
LEAST_WIDTH = 250                    # canvas units of a node
MOST_TAKERS = 2
LOADER = "PGPISLoadPreset"
# Type -> (node that gives it, output). One loader serves a graph, all others each input.
GIVES = {"MODEL": (LOADER, 0), "VAE": (LOADER, 1), "PGPIS_METHOD": (LOADER, 2), "CLIP_VISION": (LOADER, 3),
         "IMAGE": ("LoadImage", 0), "MASK": ("PGPISPoseMask", 0), "POSE_KEYPOINT": ("PGPISLoadPose", 0),
         "DENSEPOSE": ("PGPISEstimateDensePose", 0), "FACE_EMBEDS": ("PGPISFaceEmbedding", 0),
         "PGPIS_COND": ("PGPISAppearanceEmbedding", 0), "PGPIS_FRAME": ("PGPISFitPerson", 6),
         "GUIDER": ("PGPISGuider", 0), "LATENT": ("PGPISApply", 3)}
# Type -> (node that takes it, input).
TAKES = {"IMAGE": ("PreviewImage", "images"), "MASK": ("MaskToImage", "mask"), "LATENT": ("KSampler", "latent_image"),
         "MODEL": ("KSampler", "model"), "VAE": ("VAEDecode", "vae"), "POSE_KEYPOINT": ("PGPISDrawPose", "pose"),
         "DENSEPOSE": ("PGPISRenderTexture", "densepose"), "PGPIS_COND": ("PGPISApply", "cond"),
         "GUIDER": ("SamplerCustomAdvanced", "guider"), "FACE_EMBEDS": ("PGPISMultiFocalEmbedding", "face"),
         "PGPIS_FRAME": ("PGPISPasteBack", "frame"), "PGPIS_METHOD": ("PGPISPoseTransfer", "method"),
         "CONDITIONING": ("KSampler", "positive"), "NOISE": ("SamplerCustomAdvanced", "noise")}
# Where the inputs that must be connected do not show what the node is for: those that do.
LINKED = {"PGPISPoseTransfer": ("model", "method", "image", "pose"), "PGPISApply": ("model", "cond"),
          "PGPISGarmentMask": ("image", "densepose", "pose"), "PGPISPoseScore": ("wanted", "found", "image"),
          "PGPISMaskedSampler": ("vae", "reference", "mask", "guider"), "PGPISEditPose": ("pose", "retarget_to"),
          "PGPISFitPerson": ("method", "image", "pose", "target_pose"), "PGPISFaceEmbedding": ("image",),
          "PGPISPoseEditor": ("pose", "image"), "PGPISPoseMannequin": ("as_person",), "PGPISPoseMask": ("pose",),
          "PGPISPoseTween": ("first", "second"), "PGPISMergePhotos": ("image", "densepose", "image_2", "densepose_2"),
          "PGPISBodyNoise": ("densepose",),
          "PGPISCompareGrid": ("image_1", "image_2", "target"),
          "PGPISMultiFocalEmbedding": ("method", "source", "densepose", "texture", "face", "vae", "model")}
TEXTURES = ("texture", "donor")   # inputs for IMAGEs that are texture maps
MADE = {("PGPISPasteBack", "image"), ("PGPISCompareGrid", "image_1"), ("PGPISCompareGrid", "image_2")}   # by a sampler
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SHOWS = {"LoadImage": {"widgets_values": ["example.png", "image"]}}
PRESETS = {"PGPISFusionEmbedding": "Demo FPDM", "PGPISMultiFocalEmbedding": "Demo MCLD", "PGPISQueryEmbedding": "Demo QEN"}
IN_PLACE = {"PGPISReadSkeleton": "skeleton.png", "PGPISReadIUV": "iuv.png"}   # of example.png
IUV_PICTURE = Path(__file__).parents[2] / "workflows" / "inputs" / "pgpis_source_iuv.png"


class Sketch:
    """A workflow in three columns: what feeds a node, the node, what it feeds."""

    def __init__(self, known: dict[str, dict]) -> None:
        self.known = known
        self.graph: dict[str, Any] = {"nodes": [], "links": [], "groups": [], "version": 0.4}
        self.columns: list[list[dict]] = [[], [], []]

    def add(self, kind: str, column: int) -> dict:
        """A new node of this type, with nothing connected."""
        inputs = [{"name": one, "type": "COMBO" if isinstance(what, list) else what, "link": None,
                   **({"widget": {"name": one}} if isinstance(what, list) or what in WIDGETS else {})}
                  for one, (what, _, _) in inputs_of(self.known[kind]).items()]
        outputs = [{"name": one, "type": what, "links": []}
                   for one, what in zip(self.known[kind]["output_name"], self.known[kind]["output"], strict=True)]
        node = {"id": len(self.graph["nodes"]) + 1, "type": kind, "flags": {}, "order": 0, "mode": 0, "inputs": inputs,
                "outputs": outputs, "properties": {}, **SHOWS.get(kind, {})}
        self.graph["nodes"].append(node)
        self.columns[column].append(node)
        return node

    def link(self, giver: dict, output: int, taker: dict, name: str) -> None:
        """Connects an output with an input, unless the input is taken."""
        slot = next(number for number, one in enumerate(taker["inputs"]) if one["name"] == name)
        if taker["inputs"][slot]["link"] is not None:
            return
        number = len(self.graph["links"]) + 1
        self.graph["links"].append([number, giver["id"], output, taker["id"], slot, taker["inputs"][slot]["type"]])
        taker["inputs"][slot]["link"] = number
        giver["outputs"][output]["links"].append(number)

    def laid_out(self, sizes: dict[str, tuple[float, float]]) -> dict[str, Any]:
        """The workflow with its columns side by side. sizes: (width, height) of node types in canvas units."""
        left = 0.0
        for column in filter(None, self.columns):
            top = 0.0
            for node in column:
                width, height = sizes.get(node["type"], (LEAST_WIDTH, 100))
                node["pos"], node["size"] = [left, top], [max(width, LEAST_WIDTH), height]
                top += height + GAP
            left += max(node["size"][0] for node in column) + GAP
        return self.graph


def taken_by(what: str, outputs: list[str]) -> tuple[str, str] | None:
    """(node that takes an output of this type, input) for a node with these outputs."""
    if what == "MODEL" and "CONDITIONING" not in outputs:
        return ("BasicScheduler", "model") if "GUIDER" in outputs else ("PGPISPoseTransfer", "model")
    if what == "LATENT" and "MODEL" not in outputs:
        return "VAEDecode", "samples"
    if what == "LATENT" and "GUIDER" in outputs:
        return "SamplerCustomAdvanced", "latent_image"
    return TAKES.get(what)


def small_graph(name: str, known: dict[str, dict], sizes: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """A workflow with the node in the middle. known: /object_info. sizes: as of `Sketch.laid_out`."""
    sketch = Sketch(known)
    middle, loader, takers = sketch.add(name, 1), None, {}
    inputs, outputs = inputs_of(known[name]), known[name]["output"]
    for one in LINKED.get(name) or [one for one, (_, _, optional) in inputs.items() if not optional]:
        what = inputs[one][0]
        if not isinstance(what, str) or what not in GIVES:
            continue
        kind, output = ("PGPISWarpTexture", 0) if one in TEXTURES else \
            ("VAEDecode", 0) if (name, one) in MADE else GIVES[what]
        giver = loader if loader and kind == LOADER else sketch.add(kind, 0)
        loader = giver if kind == LOADER else loader
        if kind == LOADER and name in PRESETS:   # these take one method alone
            giver["widgets_values"] = [PRESETS[name], "(find one)"]
        if name in IN_PLACE and kind == "LoadImage":
            giver["widgets_values"] = [IN_PLACE[name], "image"]
        sketch.link(giver, output, middle, one)
    conditionings = 0
    for output, what in sorted(enumerate(outputs), key=lambda one: one[1] != "PGPIS_FRAME"):  # first of all
        kind, taken = taken_by(what, outputs) or (name, "")
        if what == "CONDITIONING":
            taken, conditionings = ("positive", "negative")[conditionings], conditionings + 1
        if kind == name or (len(takers) == MOST_TAKERS and kind not in takers):
            continue
        if kind not in takers:
            takers[kind] = sketch.add(kind, 2)
        sketch.link(middle, output, takers[kind], taken)
    return sketch.laid_out(sizes)


def take(host, names: list[str], folder: Path) -> None:
    """The pictures of these nodes, as WebP files in the folder. Needs chromium and node."""
    from tests.browser.chromium import drive, missing_tools
    lacking = missing_tools()
    if lacking:
        raise SystemExit(lacking)
    known = host.object_info
    Image.fromarray(draw_people([standing(CANVAS)], CANVAS)).save(host.base / "input" / IN_PLACE["PGPISReadSkeleton"])
    shutil.copyfile(IUV_PICTURE, host.base / "input" / IN_PLACE["PGPISReadIUV"])
    first = drive(host.url, [{"name": name, "workflow": small_graph(name, known, {}), "queue": False, "screenshot": None}
                             for name in names])
    sizes = {node["type"]: tuple(node["least"]) for one in first["workflows"] for node in one["nodes"]}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pgpis-pictures-") as place:
        shots = {name: Path(place) / f"{name}.png" for name in names}
        drive(host.url, [{"name": name, "workflow": small_graph(name, known, sizes), "queue": False, "width": WIDTH,
                          "screenshot": str(path)} for name, path in shots.items()])
        for name, path in shots.items():
            with Image.open(path) as picture:
                picture.convert("RGB").save(folder / f"{name}.webp", quality=QUALITY)
