"""Garment Mask: masks of clothes, hair, skin and face by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from comfy_api.latest import io

from ..pgpis_models.garments.masks import PARTS, part_mask
from ..pgpis_models.garments.outline import transfer_mask
from ..pgpis_models.poses.formats import from_pose_keypoint
from .embedding import PERSON_TOOLTIP, person_choice
from .inputs import checked_densepose, matching, pixels, watched
from .schema import ADVANCED, aliases
from .types import DenseposeType, PoseKeypointType


class GarmentMask(io.ComfyNode):
    """IMAGE with DENSEPOSE or POSE_KEYPOINT -> MASK of a garment, hair, skin or face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISGarmentMask", display_name="Garment Mask (Clothes, Hair, Skin, Face)", category="PGPIS/image",
            **aliases("clothes mask", "person mask", "human parsing", "segment clothes", "try-on mask", "inpaint mask"),
            description="Masks a part of a person by name, from where the body lies and from the picture's own colours; no "
                        "model is needed. Connect densepose, pose or both: both are best, the pose tells where a face ends, "
                        "and with the pose alone the person should stand out from the ground. Garments of one colour, such "
                        "as a dress, part at the waist; take all clothes for those. With a donor the mask covers the old "
                        "garment and what the donor's will cover, for Masked Sampler.",
            inputs=[io.Image.Input("image", tooltip="Picture(s) of one person each, (B, H, W, 3)."),
                    io.Combo.Input("part", options=list(PARTS), default=next(iter(PARTS)), tooltip="Which part is white. "
                                   "all clothes: both garments, without shoes. skin: face, neck and bare limbs. face: to "
                                   "the chin, with brows, eyes and ears."),
                    DenseposeType.Input("densepose", optional=True, tooltip="DensePose of these pictures, of their size in "
                                        "pixels; one, or one per picture."),
                    PoseKeypointType.Input("pose", optional=True, tooltip="Pose(s) found in these pictures, on a canvas of "
                                           "their shape; one frame, or one per picture."),
                    io.Int.Input("person", **ADVANCED, default=-1, min=-1, max=99, optional=True, tooltip=PERSON_TOOLTIP),
                    io.Image.Input("donor", optional=True, tooltip="Picture(s) of who lends the garment, of any size; one, "
                                   "or one per picture. Sleeves, hems, necklines and skirts that reach farther than the "
                                   "person's own are then in the mask. For clothes alone."),
                    DenseposeType.Input("donor_densepose", optional=True, tooltip="DensePose of the donor's pictures, of "
                                        "their size in pixels."),
                    PoseKeypointType.Input("donor_pose", optional=True, tooltip="Pose(s) found in the donor's pictures. The "
                                           "donor needs it, its DensePose or both.")],
            outputs=[io.Mask.Output(display_name="mask", tooltip="(B, H, W), 1 where the part shows, 0 elsewhere; for "
                                    "Masked Sampler, inpainting or Paste Back.")])

    @classmethod
    def execute(cls, image, part, densepose=None, pose=None, person=-1, donor=None, donor_densepose=None,
                donor_pose=None) -> io.NodeOutput:
        given = {"pictures": pixels(image, "the IMAGE"), "DENSEPOSE": _densepose(densepose),
                 "poses": [None] if pose is None else from_pose_keypoint(pose, person_choice(person))}
        if donor is not None:
            given |= {"donors": pixels(donor, "the donor IMAGE"), "DENSEPOSE of donors": _densepose(donor_densepose),
                      "poses of donors": [None] if donor_pose is None else from_pose_keypoint(donor_pose)}
        elif donor_densepose is not None or donor_pose is not None:
            raise ValueError("Garment Mask has a densepose or pose of a donor and no donor; expected the donor's picture. "
                             "Connect it, or disconnect them")
        count = matching(**{name: len(values) for name, values in given.items()})
        masks = []
        for number in watched(range(count)):
            photo, *rest = (values[number if len(values) > 1 else 0] for values in given.values())
            try:
                masks.append((transfer_mask if donor is not None else part_mask)(photo, part, *rest))
            except ValueError as error:
                raise error if count == 1 else ValueError(f"picture {number + 1} of {count}: {error}") from error
        return io.NodeOutput(torch.from_numpy(np.stack(masks)).float())


def _densepose(value) -> Sequence:
    return [None] if value is None else checked_densepose(value)


NODES = [GarmentMask]
