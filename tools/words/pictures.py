"""Pictures of small graphs, one for each node's help page: what feeds it, and what takes what it gives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, GAP, QUALITY = 760, 60, 70    # pixels of a picture; canvas units between columns; of the WebP
LEAST_WIDTH = 250                    # canvas units of a node
LOADER = "PGPISLoadPreset"
# Type -> (node that gives it, output). One loader serves a graph, all others each input.
GIVES = {"MODEL": (LOADER, 0), "VAE": (LOADER, 1), "PGPIS_METHOD": (LOADER, 2), "CLIP_VISION": (LOADER, 3),
         "IMAGE": ("LoadImage", 0), "MASK": ("LoadImage", 1), "POSE_KEYPOINT": ("PGPISLoadPose", 0),
         "DENSEPOSE": ("PGPISEstimateDensePose", 0), "FACE_EMBEDS": ("PGPISFaceEmbedding", 0),
         "PGPIS_COND": ("PGPISAppearanceEmbedding", 0), "PGPIS_FRAME": ("PGPISFitPerson", 6),
         "GUIDER": ("PGPISGuider", 0), "LATENT": ("PGPISApply", 3)}
# Type -> (node that takes it, input).
TAKES = {"IMAGE": ("PreviewImage", "images"), "MASK": ("MaskToImage", "mask"), "LATENT": ("KSampler", "latent_image"),
         "MODEL": ("KSampler", "model"), "VAE": ("VAEDecode", "vae"), "POSE_KEYPOINT": ("PGPISDrawPose", "pose"),
         "DENSEPOSE": ("PGPISRenderTexture", "densepose"), "PGPIS_COND": ("PGPISApply", "cond"),
         "GUIDER": ("SamplerCustomAdvanced", "guider"), "FACE_EMBEDS": ("PGPISMultiFocalEmbedding", "face"),
         "PGPIS_FRAME": ("PGPISPasteBack", "frame"), "PGPIS_METHOD": ("PGPISPoseTransfer", "method"),
         "CONDITIONING": ("KSampler", "positive")}
# Where the inputs that must be connected do not show what the node is for: those that do.
LINKED = {"PGPISPoseTransfer": ("model", "method", "image", "pose"), "PGPISApply": ("model", "cond"),
          "PGPISMaskedSampler": ("vae", "reference", "mask", "guider"), "PGPISEditPose": ("pose", "retarget_to"),
          "PGPISFitPerson": ("method", "image", "pose", "target_pose"), "PGPISFaceEmbedding": ("image",),
          "PGPISPoseMask": ("pose",), "PGPISCompareGrid": ("image_1", "image_2", "target"),
          "PGPISMultiFocalEmbedding": ("method", "source", "densepose", "texture", "face", "vae", "model")}
TEXTURES = ("texture", "donor")   # inputs for IMAGEs that are texture maps
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SHOWS = {"LoadImage": {"widgets_values": ["example.png", "image"]}}


def small_graph(name: str, known: dict[str, dict], sizes: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """A workflow with the node in the middle. known: /object_info. sizes: (width, height) of node types, where known."""
    from tools.node_words import inputs_of, outputs_of
    graph: dict[str, Any] = {"nodes": [], "links": [], "groups": [], "version": 0.4}
    columns: list[list[dict]] = [[], [], []]

    def add(kind: str, column: int) -> dict:
        inputs = [{"name": one, "type": "COMBO" if isinstance(what, list) else what, "link": None,
                   **({"widget": {"name": one}} if isinstance(what, list) or what in WIDGETS else {})}
                  for one, (what, _, _) in inputs_of(known[kind]).items()]
        outputs = [{"name": one, "type": what, "links": []} for one, what in zip(known[kind]["output_name"],
                                                                                known[kind]["output"], strict=True)]
        node = {"id": len(graph["nodes"]) + 1, "type": kind, "flags": {}, "order": 0, "mode": 0, "inputs": inputs,
                "outputs": outputs, "properties": {}, **SHOWS.get(kind, {})}
        graph["nodes"].append(node)
        columns[column].append(node)
        return node

    def link(giver: dict, output: int, taker: dict, name: str) -> None:
        slot = next(number for number, one in enumerate(taker["inputs"]) if one["name"] == name)
        number = len(graph["links"]) + 1
        graph["links"].append([number, giver["id"], output, taker["id"], slot, taker["inputs"][slot]["type"]])
        taker["inputs"][slot]["link"] = number
        giver["outputs"][output]["links"].append(number)

    middle, shared = add(name, 1), {}
    wanted = LINKED.get(name) or [one for one, (_, _, optional) in inputs_of(known[name]).items() if not optional]
    for one in wanted:
        what = inputs_of(known[name])[one][0]
        if isinstance(what, str) and what in GIVES:
            kind, output = ("PGPISWarpTexture", 0) if one in TEXTURES else GIVES[what]
            giver = shared.get(kind) or add(kind, 0)
            shared |= {kind: giver} if kind == LOADER else {}
            link(giver, output, middle, one)
    takers: dict[str, dict] = {}
    positive = False
    given = enumerate(outputs_of(known[name]))
    for output, (_, what, _) in sorted(given, key=lambda one: one[1][1] != "PGPIS_FRAME"):  # first
        kind, taken = TAKES.get(what, (name, ""))
        if what == "MODEL" and "GUIDER" in known[name]["output"]:
            kind, taken = "BasicScheduler", "model"
        elif what == "MODEL" and "CONDITIONING" not in known[name]["output"]:
            kind, taken = "PGPISPoseTransfer", "model"
        if what == "CONDITIONING":
            taken, positive = ("negative" if positive else "positive"), True
        if what == "LATENT" and "GUIDER" in known[name]["output"]:
            kind, taken = "SamplerCustomAdvanced", "latent_image"
        elif what == "LATENT" and "MODEL" not in known[name]["output"]:
            kind, taken = "VAEDecode", "samples"
        if kind == name or len(takers) == 2 and kind not in takers:
            continue
        taker = takers.setdefault(kind, None) or add(kind, 2)
        takers[kind] = taker
        if next(slot for slot in taker["inputs"] if slot["name"] == taken)["link"] is None:
            link(middle, output, taker, taken)
    left = 0.0
    for column in columns:
        top, width = 0.0, 0.0
        for node in column:
            wide, high = sizes.get(node["type"], (LEAST_WIDTH, 100))
            node["pos"], node["size"] = [left, top], [max(wide, LEAST_WIDTH), high]
            top, width = top + high + GAP, max(width, node["size"][0])
        left += width + GAP if column else 0
    return graph


def take(host, names: list[str], folder: Path) -> None:
    """The pictures of these nodes, as WebP files in the folder. Needs chromium and node."""
    from tests.browser.chromium import drive, missing_tools
    lacking = missing_tools()
    if lacking:
        raise SystemExit(lacking)
    known = host.object_info
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
                picture.convert("RGB").save(folder / f"{name}.webp", quality=QUALITY, method=6)
