"""The workflows that edit people, run by a real ComfyUI server: what must stay stays, and what is made is the donor's."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pgpis_models.poses.drawing import draw_openpose
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.surface.densepose import IUV
from pgpis_models.surface.layout import TILE, tiles
from pgpis_models.surface.provenance import COLOURS, OUTSIDE
from pgpis_models.surface.texture import warp
from tests.helpers.drawn_parts import drawn_parts, grown
from tests.helpers.dressed import dressed
from tests.helpers.workflows import is_a_picture, of_node, only, showing, workflow
from tests.host.http_host import DEMO, MCLD_FILE, demo_is_trained
from tests.host.saved_workflows import to_api
from tools.picture_workflows import PLAIN, SIZE, VIEWS, drawn, pose_text
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity


def test_a_garment_goes_to_another_person_and_nothing_else_changes(server):
    """The truth is drawn: the person in the donor's clothes. Inside, what is made is nearer to it than to the old ones."""
    prompt = to_api(workflow("garment_transfer"), server.object_info)
    assert prompt[only(prompt, "PGPISLoadPose")]["inputs"]["text"] == pose_text("pgpis_person.png")
    sampler = only(prompt, "PGPISMaskedSampler")
    prompt["white"] = {"class_type": "MaskToImage", "inputs": {"mask": prompt[sampler]["inputs"]["mask"]}}
    prompt["mask"] = {"class_type": "SaveImage", "inputs": {"images": ["white", 0], "filename_prefix": "mask"}}
    outputs = server.run(prompt)
    [made], [mask] = of_node(server, outputs, showing(prompt, "SaveImage", sampler, 1)), of_node(server, outputs, "mask")
    person, donor = (drawn(name) for name in ("pgpis_person.png", "pgpis_source.png"))
    identity = dressed(sample_identity(person.identity), sample_identity(donor.identity))
    truth = render(identity, sample_pose(pose_seed(HELD_OUT + PLAIN, VIEWS["pgpis_person.png"][1])), SIZE).image
    changes = np.abs(truth.astype(int) - person.image).max(-1) > 24
    outside = ~grown(mask[..., 0] > 0, math.ceil(prompt[sampler]["inputs"]["grow"] * min(SIZE)) + 1)
    assert outside.mean() > 0.5 and np.array_equal(made[outside], person.image[outside])
    if not demo_is_trained():
        return
    donors, old = (np.abs(made.astype(int) - each).mean(-1)[changes].mean() / 255 for each in (truth, person.image))
    print(f"inside: {donors:.3f} from the donor's clothes, {old:.3f} from the old ones")
    assert donors <= 0.5 * old


@pytest.mark.parametrize("name, pose", [("mcld_garment_swap", "pgpis_person.png"),
                                        ("mcld_identity_swap", "pgpis_target.png")])
def test_swaps_by_texture_map_take_the_clothes_and_keep_the_head(name, pose, server):
    """The map has the donor's cloth and the person's head, texel by texel; the picture has the person's head."""
    prompt = to_api(workflow(name), server.object_info)
    outputs = server.run(prompt)
    [made] = of_node(server, outputs, showing(prompt, "SaveImage", only(prompt, "VAEDecode")))
    is_a_picture(made, SIZE)
    [grid] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISCompareGrid")))
    is_a_picture(grid, (8 + SIZE[0] + 18 + 8, 8 + 3 * (SIZE[1] + 8)))
    [texture] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISEditTexture")))
    person, donor = drawn("pgpis_person.png"), drawn("pgpis_source.png")
    whole = np.ones((24, TILE, TILE), bool)
    own, lent = (warp(one.image, IUV.from_picture(one.iuv()), "atlas", "fast", "all", whole).picture
                 for one in (person, donor))
    owns, lents, alike = ((one == other).all(-1) for one, other in ((texture, own), (texture, lent), (own, lent)))
    assert tiles(owns)[22:].all() and tiles(alike)[22:].mean() < 0.5, "the head is the person's"
    assert (owns | lents).all()
    cloth = drawn_parts(sample_identity(donor.identity), donor)["all clothes"]
    shown = np.where(cloth[..., None], donor.image.clip(1), 0).astype(np.uint8)   # black counts as unseen
    of_cloth = warp(shown, IUV.from_picture(donor.iuv()), "atlas", "fast", "none").seen
    assert tiles(of_cloth)[:2].sum() > 1000 and lents[of_cloth].mean() > 0.99, "trunk and limbs wear the donor's cloth"
    if name == "mcld_garment_swap":   # the map alone, drawn on the person's own DensePose
        [alone] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISRenderTexture")))
        ground = person.part == 0
        assert alone.shape == (*SIZE, 3) and (alone[ground] == 128).all() and alone[~ground].std() > 20
    if (DEMO / MCLD_FILE).is_file():
        stands = sample_pose(pose_seed(drawn(pose).identity, VIEWS[pose][1]))
        right, wrong = (render(sample_identity(one.identity), stands, SIZE) for one in (person, donor))
        head = (right.part > 22) | (wrong.part > 22)
        near, far = (np.abs(made.astype(int) - one.image)[head].mean() / 255 for one in (right, wrong))
        print(f"{name}: head {near:.3f} from the person's, {far:.3f} from the donor's")
        assert near <= 0.5 * far


def test_a_pose_set_by_hand_is_drawn_and_made(server):
    prompt = to_api(workflow("edit_pose"), server.object_info)
    frames = json.loads(prompt[only(prompt, "PGPISPoseEditor")]["inputs"]["text"])
    prompt[only(prompt, "KSampler")]["inputs"]["steps"] = 1
    outputs = server.run(prompt)
    [made] = of_node(server, outputs, showing(prompt, "SaveImage", only(prompt, "VAEDecode")))
    is_a_picture(made, SIZE)
    [grid] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISCompareGrid")))
    is_a_picture(grid, (8 + SIZE[0] + 18 + 8, 8 + 3 * (SIZE[1] + 8)))
    skeleton = grid[8 + 18:, 8 + SIZE[1] + 8:][:SIZE[0], :SIZE[1]]
    assert np.array_equal(skeleton, draw_openpose(from_pose_keypoint(frames)[0]))


def test_a_grid_of_poses_and_people_has_a_column_for_each_pose(server):
    prompt = to_api(workflow("pose_style_grid"), server.object_info)
    prompt[only(prompt, "KSampler")]["inputs"]["steps"] = 1
    outputs = server.run(prompt)
    made = of_node(server, outputs, showing(prompt, "SaveImage", only(prompt, "VAEDecode")))
    assert len(made) == 15 and all(picture.shape == (*SIZE, 3) for picture in made)
    [grid] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISCompareGrid")))
    is_a_picture(grid, (8 + 5 * (SIZE[0] + 18 + 8), 8 + 3 * (SIZE[1] + 8)))
    first = grid[8 + 18:][:SIZE[0], 8 + SIZE[1] + 8:][:, :SIZE[1]]
    # the grid rounds to 8 bit, Save Image truncates
    assert np.abs(first.astype(int) - made[5]).max() <= 1, "the second pose's row of people starts the second column"


def test_two_photos_become_one_person_and_a_map_of_which_shows_what(server):
    """On the target, seen from behind, the trunk's back is the second photo's, and its front the first's or made up."""
    prompt = to_api(workflow("two_photos"), server.object_info)
    assert prompt[only(prompt, "PGPISLoadPose")]["inputs"]["text"] == pose_text("pgpis_view_target.png")
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 1
    outputs = server.run(prompt)
    [made] = of_node(server, outputs, only(prompt, "SaveImage"))
    is_a_picture(made, SIZE)
    [shown] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISMergePhotos"), 4))
    target = IUV.from_picture(drawn("pgpis_view_target.png").iuv())
    near = [np.abs(shown.astype(int) - colour).sum(-1) < 60 for colour in list(COLOURS.values())[:2]]
    front, back = (target.part_mask(f"torso {side}") for side in ("front", "back"))
    assert near[1][back].mean() > 0.9 and not near[1][front].any()
    assert near[0][front].mean() > 0.1 and near[0][back].mean() < 0.02   # most of the front is made up: the photo hides it
    assert np.array_equal((shown == OUTSIDE).all(-1), ~target.part_mask())


def test_anothers_pose_is_mirrored_onto_the_persons_limbs_and_its_region_covers_it(server):
    prompt = to_api(workflow("retarget_pose"), server.object_info)
    edit = prompt[only(prompt, "PGPISEditPose")]["inputs"]
    given, own = (json.loads(prompt[edit[name][0]]["inputs"]["text"]) for name in ("pose", "retarget_to"))
    assert own == json.loads(pose_text("pgpis_source.png")) and edit["mirror"]
    prompt[only(prompt, "KSampler")]["inputs"]["steps"] = 2
    outputs = server.run(prompt)
    [made] = of_node(server, outputs, showing(prompt, "SaveImage", only(prompt, "VAEDecode")))
    [skeleton] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISDrawPose")))
    [grid] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISCompareGrid")))
    is_a_picture(made, SIZE)
    as_given = draw_openpose(from_pose_keypoint(given)[0])
    assert (skeleton != as_given).any() and (skeleton != as_given[:, ::-1]).any(), "mirrored, and other lengths"
    region = grid[-8 - SIZE[0]:-8, 8 + 2 * (SIZE[1] + 8):][:, :SIZE[1]]
    assert set(np.unique(region)) == {0, 255} and (region[skeleton.any(-1)] == 255).all()
