"""Steps that the tests of MCLD's nodes share: from people to a conditioning, and from that to latents."""

from __future__ import annotations

import torch

SIZE = (128, 96)


def shaken(module, seed=31):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():   # what starts at zero would hide what it is given
            value += 0.05 * torch.randn(value.shape, generator=generator)
    return module.requires_grad_(False)


def texture_of(nodes, person):
    return nodes.texture.WarpTexture.execute(person.image, person.densepose, "atlas", "fast", "all").result[0]


def face_of(nodes, method, person):
    return nodes.face.FaceEmbedding.execute(person.image, nodes.face.OWN, 0, method, person.densepose).result[0]


def embed(nodes, method, base, source, target, **changes):
    given = {"texture": texture_of(nodes, source), "vae": base.vae, "model": base.model} | changes
    given.setdefault("face", None if "face" in changes else face_of(nodes, method, source))
    weight = given.pop("face_weight", 0.5)
    return nodes.multifocal.MultiFocalEmbedding.execute(method, source.image, target.densepose, weight, **given).result[0]


def rows_of(encoded):
    return {"image": encoded.image, "texture": encoded.texture, "face": encoded.face, "pose": encoded.pose,
            **{f"reference {site}": value for site, value in encoded.reference.items()}}


def largest_error(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-9)) for name in ours)


def sampled(nodes, base, cond, steps=2, cfg=2.0, seed=5):
    import comfy.sample
    patched, positive, negative, latent = nodes.sampling.Apply.execute(base.model, cond).result
    noise = comfy.sample.prepare_noise(latent["samples"], seed)
    return comfy.sample.sample(patched, noise, steps, cfg, "euler", "sgm_uniform", positive, negative, latent["samples"],
                               disable_pbar=True, seed=seed)


class Clip:
    """Stands for the host's CLIP_VISION: mean colours of a grid, which say what was given."""

    image_size = 32

    def __init__(self, width):
        self.width, self.seen = width, []

    def encode_image(self, image, crop=True):
        self.seen.append(image)
        return {"image_embeds": torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), 8).flatten(1)[:, :self.width]}
