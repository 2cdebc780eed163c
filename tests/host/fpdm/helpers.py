"""Poses of a walk, and calls of FPDM's nodes."""

from __future__ import annotations

import numpy as np

FRAMES = 5


def walking(count: int = FRAMES, canvas=(128, 96)) -> list[dict]:
    """Frames of a person whose joints all move."""
    random, frames = np.random.default_rng(4), []
    start, pace = random.uniform(20, 80, (18, 2)), random.uniform(-3, 3, (18, 2))
    for n in range(count):
        xy = (start + n * pace) * (canvas[1] / 96, canvas[0] / 128)
        flat = np.concatenate([xy, np.ones((18, 1))], 1).ravel().tolist()
        frames.append({"people": [{"pose_keypoints_2d": flat}], "canvas_height": canvas[0], "canvas_width": canvas[1]})
    return frames


def embed(nodes, fpdm, photo, pose, **more):
    return nodes.fusion.FusionEmbedding.execute(fpdm, photo, pose, **{"person": -1, "empty_frames": "error"} | more).result


def sequence(nodes, model, fpdm, photo, pose, **more):
    settings = {"person": -1, "empty_frames": "hold", "seed": 5, "noise": nodes.sequence.OWN, "steps": 3, "cfg": 2.0,
                "sampler_name": "euler", "scheduler": "normal", "chunk": 2}
    return nodes.sequence.PoseSequenceSampler.execute(model, fpdm, photo, pose, **settings | more).result[0]["samples"]
