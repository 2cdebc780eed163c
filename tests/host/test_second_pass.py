"""The shipped demo's CFLD at one and a half times its size: a second pass on enlarged pictures of 16 mannequins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.measures import gradient, mask_overlap, person_mask
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

COUNT, SIZE, LARGER = 16, (256, 192), 1.5


def view(number: int, pose: int, size=SIZE):
    return render(sample_identity(HELD_OUT + number), sample_pose(pose_seed(HELD_OUT + number, pose)), size)


def as_tensor(drawn) -> torch.Tensor:
    return torch.from_numpy(drawn.image).movedim(-1, 0).float() / 255


@pytest.fixture(scope="module")
def passes(host):
    """(first picture enlarged, second pass, true larger picture), each (16, 3, 384, 288) in 0..1."""
    import comfy.sample
    loaders, transfer = host.pack("nodes.loaders"), host.pack("nodes.transfer")
    keypoints, formats = host.pack("pgpis_models.poses.keypoints"), host.pack("pgpis_models.poses.formats")
    folder = loaders.DEMO_FOLDER
    patch = pytest.MonkeyPatch()
    patch.setattr(loaders, "_path_of", lambda name: folder / name)   # whatever other tests put before the shipped files
    method, = loaders.LoadCheckpoint.execute("demo_cfld.safetensors").result
    model, vae = loaders.LoadDemoBase.execute().result
    patch.undo()
    sources = torch.stack([as_tensor(view(n, 0)) for n in range(COUNT)]).movedim(1, -1)
    targets = [view(n, 1) for n in range(COUNT)]
    pose = formats.to_pose_keypoint([keypoints.Keypoints(one.keypoints, one.detected, SIZE) for one in targets])
    patched, positive, negative, latent = transfer.PoseTransfer.execute(model, method=method, image=sources,
                                                                        pose=pose, fit=False).result[:4]

    def run(latents, steps, denoise):
        noise = comfy.sample.prepare_noise(latents, 7)
        with torch.inference_mode():
            return comfy.sample.sample(patched, noise, steps, 1.5, "euler", "sgm_uniform", positive, negative, latents,
                                       denoise=denoise, disable_pbar=True, seed=7)
    size = tuple(int(side * LARGER) for side in SIZE)
    first = run(latent["samples"], 10, 1.0)
    with torch.inference_mode():
        small = F.interpolate(vae.decode(first).movedim(-1, 1), size=size, mode="bicubic", antialias=True).clamp(0, 1)
        large = vae.decode(run(vae.encode(small.movedim(1, -1)), 7, 0.65)).movedim(-1, 1).clamp(0, 1)
    return small, large, torch.stack([as_tensor(view(n, 1, size)) for n in range(COUNT)])


def test_a_second_pass_is_sharper_and_keeps_the_pose(passes):
    before, after, truth = passes
    where = person_mask(truth)
    sharp = [float(gradient(one, where)) for one in (before, after)]
    overlap = [float(mask_overlap(one, truth).mean()) for one in (before, after)]
    same = float(mask_overlap(after, before).mean())
    print(f"sharpness {sharp[0]:.4f} -> {sharp[1]:.4f}, overlap with the true mask {overlap[0]:.3f} -> {overlap[1]:.3f}, "
          f"with the first pass {same:.3f}")
    assert sharp[1] > 1.01 * sharp[0]
    assert same > 0.88 and overlap[1] > overlap[0] - 0.03
