"""How well results obey their pose, and the best of several."""

from __future__ import annotations

import math

import numpy as np
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...pgpis_models.poses.formats import NOBODY, from_pose_keypoint, people_seen
from ...pgpis_models.poses.keypoints import Keypoints
from ...pgpis_models.poses.scoring import Score, best_pose, closest, overlay, score, similarity
from ..embedding import PERSON_TOOLTIP, shown_poses
from ..inputs import checked_faces, matched, matching, pixels, watched
from ..schema import ADVANCED, aliases
from ..types import FaceEmbedsType, PoseKeypointType

BY_POSE, BY_FACE = "pose", "face"
HEADER = "result\tOKS\tPCK@0.1\tPCK@0.2\tdistance\tmissing"


class PoseScore(io.ComfyNode):
    """Wanted and found POSE_KEYPOINT, results -> the best result, scores, an overlay."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseScore", display_name="Pose Score", category="PGPIS/pose",
            **aliases("pck", "oks", "best of n", "compare pose", "keypoints"),
            description="Measures how well results obey the pose that was wanted: OKS (COCO's similarity), PCK at 0.1 and "
                        "0.2 of the torso, and the mean distance. Find the results' poses with Extract Pose or another "
                        "detector. Of several results the best one comes out, by pose or by the likeness of its face, so "
                        "that the best of N is one node.",
            inputs=[PoseKeypointType.Input("wanted", tooltip="The pose that was asked for: one, or one per result."),
                    PoseKeypointType.Input("found", optional=True, tooltip="The poses found in the results, one frame per "
                                           "result; of several people the one nearest to the wanted pose counts. Canvases "
                                           "of another size are stretched to the wanted pose's. Needed, but to choose by "
                                           "face."),
                    io.Image.Input("image", optional=True, tooltip="The results, one per frame of found. Without them there "
                                   "is no best picture, and the overlay is on black."),
                    FaceEmbedsType.Input("face", optional=True, tooltip="Face of the person from the photo: one, or one per "
                                         "result."),
                    FaceEmbedsType.Input("result_face", optional=True, tooltip="Faces of the results, one per result, of "
                                         "the same encoder."),
                    io.Combo.Input("choose_by", options=[BY_POSE, BY_FACE], default=BY_POSE, tooltip="What the best result "
                                   "is best in: the highest OKS, or the highest cosine of the faces (needs face and "
                                   "result_face)."),
                    io.Int.Input("person", **ADVANCED, default=-1, min=-1, max=99, optional=True,
                                 tooltip=f"Of the wanted pose. {PERSON_TOOLTIP}")],
            outputs=[io.Image.Output(display_name="best", tooltip="The best result, one picture."),
                     io.Image.Output(display_name="overlay", tooltip="Every result dimmed, the pose found in colours, the "
                                     "wanted one in white. Lines join them: green within 0.1 of the torso, yellow within "
                                     "0.2, else red; a red ring is a joint that was not found."),
                     io.Float.Output(display_name="score", tooltip="Of the best result, 0..1: OKS, or the cosine of the "
                                     "faces where these choose."),
                     io.Int.Output(display_name="index", tooltip="Which result is the best, counted from 0."),
                     io.String.Output(display_name="table", tooltip="One line per result, tab separated: OKS and PCK as "
                                      "shares, distance in pixels of the wanted pose's canvas, joints that were not found, "
                                      "and the cosine of the faces where given.")])

    @classmethod
    def execute(cls, wanted, found=None, choose_by=BY_POSE, image=None, face=None, result_face=None,
                person=-1) -> io.NodeOutput:
        goals = shown_poses(wanted, person)
        if found is None and choose_by == BY_POSE:
            raise ValueError(f"choose_by is 'pose' but found came empty; expected the POSE_KEYPOINT of the results. "
                             f"Connect Extract Pose, or choose by {BY_FACE!r}")
        people = [[]] if found is None else _people(found)
        pictures = None if image is None else pixels(image, "the IMAGE")
        counts = {"wanted poses": len(goals), "found poses": len(people)}
        count = matching(**counts | ({} if pictures is None else {"pictures": len(pictures)}))
        goals, people = ([*one] * count if len(one) == 1 else one for one in (goals, people))
        if pictures is not None and len(pictures) == 1:
            pictures = np.repeat(pictures, count, axis=0)
        nearest = [closest(goal, seen) for goal, seen in zip(goals, people, strict=True)]
        scores = [score(goal, one) for goal, one in watched(zip(goals, nearest, strict=True))]
        cosines = _cosines(face, result_face, count, choose_by)
        index = int(np.argmax(cosines)) if choose_by == BY_FACE else best_pose(scores)
        value = float(cosines[index]) if choose_by == BY_FACE else scores[index].oks
        best = ExecutionBlocker("Pose Score's output best is empty, since nothing is connected to its image; connect the "
                                "results") if pictures is None else image[index % len(image)][None]
        if found is None:
            empty = ExecutionBlocker("Pose Score's output overlay is empty, since nothing is connected to its found; "
                                     "connect Extract Pose of the results")
            return io.NodeOutput(best, empty, value, index, table([], cosines))
        grounds = [np.zeros((*goal.canvas, 3), np.uint8) for goal in goals] if pictures is None else pictures
        if len({ground.shape for ground in grounds}) > 1:
            grounds = [np.zeros((*goals[0].canvas, 3), np.uint8)] * count   # one batch, one size
        drawn = [overlay(ground, goal, one) for ground, goal, one
                 in watched(zip(grounds, goals, nearest, strict=True))]
        return io.NodeOutput(best, torch.from_numpy(np.stack(drawn)).float() / 255, value, index, table(scores, cosines))


def _people(found) -> list[list[Keypoints]]:
    """Who is seen in each frame of a POSE_KEYPOINT. Raises ValueError for other forms."""
    from_pose_keypoint(found, empty=NOBODY)
    return [people_seen(frame) for frame in ([found] if isinstance(found, dict) else found)]


def _cosines(face, result_face, count: int, choose_by: str) -> np.ndarray | None:
    """(count,) of the faces; None where they are not given. Raises ValueError where they are needed or do not match."""
    if face is None or result_face is None:
        if choose_by == BY_FACE:
            lacking = " and ".join(name for name, one in (("face", face), ("result_face", result_face)) if one is None)
            raise ValueError(f"choose_by is 'face' but {lacking} came empty; expected FACE_EMBEDS of the person's "
                             f"photo and of the results. Connect Face Embedding, or choose by {BY_POSE!r}")
        return None
    length = getattr(getattr(face, "vectors", None), "shape", (0, 0))[-1]
    vectors = [matched(count, checked_faces(one, length), name).double().numpy()
               for one, name in ((face, "face"), (result_face, "result_face"))]
    return similarity(*vectors)


def table(scores: list[Score], cosines: np.ndarray | None) -> str:
    """One line per result, tab separated, under a header; without scores that of the faces alone."""
    rows = [[column] for column in (HEADER if scores else "result").split("\t")]
    for number in range(len(scores) or len(cosines)):
        rows[0].append(str(number))
    for one in scores:
        distance = "-" if math.isnan(one.distance) else f"{one.distance:.2f}"
        values = (f"{one.oks:.4f}", f"{one.pck_near:.4f}", f"{one.pck_far:.4f}", distance, ", ".join(one.missing) or "-")
        for row, value in zip(rows[1:], values, strict=True):
            row.append(value)
    if cosines is not None:
        rows.append(["face", *(f"{one:.4f}" for one in cosines)])
    return "\n".join("\t".join(line) for line in zip(*rows, strict=True))


NODES = [PoseScore]
