"""Several photos of one person in the embedding nodes and Pose Transfer: in both bindings, for CFLD, FPDM and QEN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.host.test_binding_parity import diffusers_predictions, native_predictions, pack, relative  # noqa: F401
from tests.host.test_pose_transfer import SIZE, drawn, frames, methods, model, nodes, person_at, sampled, transfer  # noqa: F401

KINDS = {"cfld": ("appearance", "AppearanceEmbedding", ()), "fpdm": ("fusion", "FusionEmbedding", ("error",)),
         "qen": ("queries", "QueryEmbedding", (1.0, 0.0, 1.0))}


def embedded(nodes, methods, name, source, **more):  # noqa: F811
    """The PGPIS_COND that the method's embedding node makes of a source (N, H, W, 3) and two poses."""
    module, kind, widgets = KINDS[name]
    return getattr(getattr(nodes, module), kind).execute(methods[name], source, frames(), -1, *widgets, **more).result[0]


TOGETHER = "one person together"


def together(*photos):
    return torch.cat(photos)


@pytest.fixture(scope="module")
def predictions(host, pack, tiny, nodes, methods, demo):  # noqa: F811
    """name, PGPIS_COND -> what the host's UNet and diffusers' predict of its terms, each (terms, 2, 4, h, w)."""
    bare, unet = tiny.model(), tiny.unet()
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 4, *tiny.latent, generator=g), torch.full((2,), 400.0)

    def both(name, cond):
        weights = methods[name].checkpoint.unet_weights
        rows = pack.injections.harmonise([term.injections for term in cond.guidance().terms], cond.batch)
        ours = native_predictions(pack, bare, rows, x, t, tiny.latent, weights)
        before = pack.diffusers.swap_weights(unet, weights)
        theirs = diffusers_predictions(pack, unet, rows, x, t)
        pack.diffusers.swap_weights(unet, before)
        return ours, theirs
    return both


@pytest.mark.parametrize("name", list(KINDS))
def test_one_photo_given_twice_is_that_photo_given_once(name, nodes, methods, predictions):  # noqa: F811
    one, other = drawn(), drawn(104)
    once, twice, two = (predictions(name, embedded(nodes, methods, name, photos, **more)) for photos, more in (
        (one, {}), (together(one, one), {"photos": TOGETHER}), (together(one, other), {"photos": TOGETHER})))
    for binding in range(2):
        assert relative(twice[binding], once[binding]) < 1e-4
        assert relative(two[binding][-1], once[binding][-1]) > 1e-3, "the second photo is seen"
        assert relative(two[binding][0], once[binding][0]) < 1e-4, "nobody is nobody, however many photos"
    assert relative(two[0], two[1]) < 1e-4, "both bindings"


@pytest.mark.parametrize("name", list(KINDS))
def test_the_order_of_the_photos_changes_nothing(name, nodes, methods, predictions):  # noqa: F811
    there, back = (predictions(name, embedded(nodes, methods, name, together(*photos), photos=TOGETHER))[0]
                   for photos in ((drawn(), drawn(104)), (drawn(104), drawn())))
    assert relative(there, back) < 1e-4


def test_poses_of_the_photos_weigh_them_by_what_they_show(nodes, methods):  # noqa: F811
    front = person_at(0, 0, *SIZE)
    rows = np.array(front["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
    rows[:, 0] = SIZE[1] - rows[:, 0]   # joints keep their names, so that the mirrored person shows the back
    back = {**front, "people": [{"pose_keypoints_2d": rows.ravel().tolist()}]}
    photos, module = together(drawn(), drawn(104)), nodes.appearance.AppearanceEmbedding
    single = [embedded(nodes, methods, "cfld", photo).encoded.query_bias for photo in photos[:, None]]
    for target, near in ((front, 0), (back, 1)):
        made = module.execute(methods["cfld"], photos, [target], -1, photos=TOGETHER, source_pose=[front, back])
        for site, bias in made.result[0].encoded.query_bias.items():
            apart = [float((bias - own[site]).norm()) for own in single]
            assert apart[near] < 0.5 * apart[1 - near], site
    with pytest.raises(ValueError, match="2 photos of one person came with 1 of their poses"):
        module.execute(methods["cfld"], photos, [front], -1, photos=TOGETHER, source_pose=[front])


@pytest.mark.parametrize("name", ["cfld", "fpdm", pytest.param("qen", marks=pytest.mark.hosts)])
def test_pose_transfer_takes_them_as_the_embedding_node_does(name, nodes, model, methods):  # noqa: F811
    photos = together(drawn(), drawn(104))
    ours = sampled(*transfer(nodes, model, methods[name], photos, pose=frames(), photos=TOGETHER))
    cond = embedded(nodes, methods, name, photos, photos=TOGETHER)
    theirs = sampled(*nodes.sampling.Apply.execute(model, cond).result)
    assert ours.shape == (2, 4, 16, 12) and torch.equal(ours, theirs)


def test_fit_frames_each_photo_and_brings_the_targets_into_the_first(nodes, model, methods):  # noqa: F811
    """Two wide photos with the person at either side, three targets."""
    wide = torch.cat([drawn()[:, :1, :1].repeat(1, 160, 300, 1)] * 2)
    wide[0, 20:148, 30:126], wide[1, 10:138, 180:276] = drawn()[0], drawn(104)[0]
    poses = [person_at(30, 20, 160, 300), person_at(180, 10, 160, 300)]
    *run, frame = nodes.transfer.PoseTransfer.execute(model, method=methods["cfld"], image=wide, pose=frames(3),
                                                      source_pose=poses, photos=TOGETHER).result
    assert run[3]["samples"].shape == (3, 4, 16, 12) and len(frame) == 1
    fits = [nodes.framing.FitPerson.execute(methods["cfld"], wide[n:n + 1], pose=[poses[n]],
                                            target_pose=frames(3) if n == 0 else None).result for n in range(2)]
    assert frame == fits[0][6]
    framed = torch.cat([fit[0] for fit in fits])
    theirs = transfer(nodes, model, methods["cfld"], framed, pose=fits[0][4], photos=TOGETHER, source_pose=poses)
    assert torch.equal(sampled(*run), sampled(*theirs))
    with pytest.raises(ValueError, match="2 photos of one person came with 1 poses of theirs; expected one for each photo"):
        nodes.transfer.PoseTransfer.execute(model, method=methods["cfld"], image=wide, pose=frames(), source_pose=poses[:1],
                                            photos=TOGETHER)


def test_photos_of_two_people_are_told_and_of_one_are_not(nodes, model, methods, caplog):  # noqa: F811
    """The other one wears the opposite of every colour. What cannot be read is refused by name."""
    poses, one, other = [person_at(0, 0, *SIZE)] * 2, together(drawn(), drawn()), together(drawn(), 1 - drawn())
    given = {"photos": TOGETHER, "source_pose": poses}
    apart, unknown = "photos 1 and 2 differ in the colours of skin and clothes", "the photos were not compared"
    embed = nodes.fusion.FusionEmbedding.execute
    for run in (lambda source, **more: transfer(nodes, model, methods["cfld"], source, pose=poses, **more),
                lambda source, **more: embed(methods["fpdm"], source, poses, -1, "error", **more)):
        for source, more, told in ((one, given, []), (other, given, [apart]), (other, {"source_pose": poses}, []),
                                   (other, {"photos": TOGETHER}, [unknown]), (one[:1], {"photos": TOGETHER}, [])):
            caplog.clear()
            with caplog.at_level("INFO"):
                run(source, **more)
            assert [said for said in (apart, unknown) if said in caplog.text] == told
        with pytest.raises(ValueError, match="source IMAGE holds values that are not finite"):
            run(torch.full_like(other, float("nan")), **given)
