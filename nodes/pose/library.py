"""Poses by name, from the pack's library and a user's own files, and a node that keeps a pose there."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ...pgpis_models.body.frames import Figure, figure_of, seen_whole
from ...pgpis_models.body.library import library, own_files, save_poses
from ...pgpis_models.body.measured import Proportions, of_person
from ...pgpis_models.poses.files import checked, load_poses
from ...pgpis_models.poses.formats import from_pose_keypoint
from ..embedding import PERSON_TOOLTIP, person_choice
from ..schema import aliases
from ..types import PoseKeypointType
from .mannequin import drawn_outputs, figure_outputs, size_inputs

DATA = Path(__file__).resolve().parents[2] / "web" / "pose_library" / "poses.json"
MODELS, INPUT = "models/pgpis/poses", "input"
NO_BODY = ("this pose is a file with joints alone, so it has no {}; choose a pose of the library, or one that a Pose "
           "Mannequin made")


def _folders() -> dict[str, Path]:
    """Where own poses lie, by what stands before their names."""
    return {MODELS: Path(folder_paths.models_dir) / "pgpis" / "poses", INPUT: Path(folder_paths.get_input_directory())}


def _own() -> dict[str, Path]:
    """Own poses by the names that the widget shows."""
    return {f"{label}/{name}": folder / name for label, folder in _folders().items() for name in own_files(folder)}


def _unknown(name: str) -> str:
    """What to do about a name that is neither in the library nor an own file."""
    return (f"no pose {name!r} in the library, {' or '.join(map(str, _folders().values()))}; expected one of the list. "
            "Choose another, or put the file there and press R: a workflow names somebody's own pose, but does not hold it")


class PoseLibrary(io.ComfyNode):
    """A pose by name -> POSE_KEYPOINT, DENSEPOSE, IMAGE, MASK, depth IMAGE, text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = list(library(DATA))
        return io.Schema(
            node_id="PGPISPoseLibrary", display_name="Pose Library", category="PGPIS/pose",
            **aliases("openpose", "skeleton", "pose presets", "gallery", "person", "mannequin"),
            description="Poses by name: people who stand, walk, run, dance, sit, reach and lie. The gallery below searches "
                        "them by word. Own poses, which Save Pose keeps, come after them. What it gives fits the canvas.",
            inputs=[io.Combo.Input("name", options=[*names, *_own()], default=names[0], tooltip="The pose: one of the "
                                   f"library, or an own file in {MODELS} or {INPUT}, folders included."),
                    *size_inputs(),
                    PoseKeypointType.Input("as_person", optional=True, tooltip="The pose found in a photo: the body takes "
                                           "this person's proportions, as far as the photo shows them. Own files that hold "
                                           "joints alone keep theirs (Edit Pose has retarget_to)."),
                    io.Int.Input("person", default=-1, min=-1, max=99, optional=True, tooltip=PERSON_TOOLTIP)],
            outputs=[*figure_outputs(), io.String.Output(display_name="state", tooltip="The text of the posed body (of a "
                                                         "file's first one), for the state of a Pose Mannequin.")])

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Here, so that a pose that is gone gets a sentence; None where a link gives the name."""
        return name is None or name in library(DATA) or name in _own() or _unknown(name)

    @classmethod
    def fingerprint_inputs(cls, name: str, **_others) -> tuple:
        path = _own().get(name)
        return name, path.stat().st_mtime_ns if path else None

    @classmethod
    def execute(cls, name, width, height, as_person=None, person=-1) -> io.NodeOutput:
        size, known = (height, width), library(DATA)
        proportions = None if as_person is None else of_person(
            from_pose_keypoint(as_person, person_choice(person), empty="hold"))
        if name in known:
            figure = seen_whole(Figure(known[name].state, proportions or Proportions()), size)
            return io.NodeOutput(*drawn_outputs([figure], size), figure.state.to_text())
        own = _own()
        if name not in own:
            raise ValueError(_unknown(name))
        frames = checked(load_poses(own[name]))
        figures = [figure_of(frame, f"frame {number} of {name}") for number, frame in enumerate(frames, start=1)]
        if None in figures:
            return io.NodeOutput(frames, *(ExecutionBlocker(NO_BODY.format(what)) for what in
                                           ("DensePose", "picture", "mask", "depth", "state")))
        if proportions is not None:
            figures = [Figure(figure.state, proportions) for figure in figures]
        return io.NodeOutput(*drawn_outputs(figures, size), figures[0].state.to_text())


class SavePose(io.ComfyNode):
    """POSE_KEYPOINT -> a file of the own poses."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISSavePose", display_name="Save Pose", category="PGPIS/pose", is_output_node=True,
            **aliases("openpose json", "skeleton", "export pose", "keypoints"),
            description="Keeps poses as a file that Pose Library lists and Load Pose reads, with the body of those that a "
                        "Pose Mannequin or the library made.",
            inputs=[PoseKeypointType.Input("pose", tooltip="Pose(s) to keep; all frames go into one file."),
                    io.String.Input("filename", default="my pose", tooltip="Name of the file, with folders before it if "
                                    "wanted: dance/leap. Where it is there already, a number is put behind it."),
                    io.Combo.Input("folder", options=[MODELS, INPUT], default=MODELS, tooltip=f"{MODELS}: kept with the "
                                   f"models. {INPUT}: ComfyUI's input folder, whose files may be uploaded and downloaded."),
                    io.Boolean.Input("overwrite", default=False, tooltip="Write over a file of the same name.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="The pose(s) as they came.")])

    @classmethod
    def execute(cls, pose, filename, folder, overwrite) -> io.NodeOutput:
        frames = [pose] if isinstance(pose, dict) else pose
        root = _folders()[folder]
        saved = save_poses(frames, root, filename, overwrite).relative_to(root).as_posix()
        return io.NodeOutput(frames, ui=ui.PreviewText(f"{folder}/{saved}"))


NODES = [PoseLibrary, SavePose]
