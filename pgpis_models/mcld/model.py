"""MCLD: Multi-focal Conditioned Latent Diffusion for Person Image Synthesis (Liu et al., CVPR 2025).

The source person is looked at three times: the whole picture (a CLIP token I), its texture map (a CLIP token A, and the
features that a reference UNet makes of its latent) and the face (16 tokens F of a recognition embedding). Each stage of
the UNet sees what it is good for: down I and F, middle I, A and F, up A and F (table 1 and eq. 8). The target pose is a
DensePose picture. Where paper and released code disagree this follows the code, since published weights depend on it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..noise.schedule import NoiseSchedule
from ..parts.mixing import Mixing
from ..parts.pose_guider import PoseGuider
from ..unet.guidance import Guidance, Term, check_scales
from ..unet.injections import ExtraAttention, Injections, everywhere
from ..unet.shapes import unet_shapes
from ..unet.sites import SITES
from .config import FACE_WEIGHT, MCLDConfig
from .parts import FaceAttention, FaceProjector, WeightTree, through_float16
from .reference import ReferenceNetwork, build_reference_unet
from .schedule import sampling_schedule
from .vision import Vision

GUIDANCE_WEIGHT = 3.5


@dataclass(frozen=True)
class Appearance:
    """What MCLD knows of a source person; it does not depend on pose or timestep. Batches are B or 1.

    image, texture: (B, 1, X) CLIP tokens I and A (config.image_tokens of them where the checkpoint brings encoders of its
    own); A is zero when the texture was left out. face: (B, 16, X) tokens F.
    reference: site -> (B, HW', C) features of the reference network; empty when the texture was left out. face_weight:
    lambda of the face branch; 0 leaves it out, and no work is done for it. reference_parts: of how many equal parts the
    features are (`joining`), as of `Injections.self_reference_parts`.
    """

    image: Tensor
    texture: Tensor
    face: Tensor
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    face_weight: float = FACE_WEIGHT
    reference_parts: int = 1

    def with_pose(self, pose: Tensor) -> Encoded:
        """Joins the map of `encode_pose`; either batch may be 1. Raises ValueError for other differing numbers."""
        features = next(iter(self.reference.values()), self.texture)
        _common_batch(sources=self.image, textures=self.texture, faces=self.face, references=features, poses=pose)
        return Encoded(self.image, self.texture, self.face, self.reference, self.face_weight, self.reference_parts,
                       pose=pose)


@dataclass(frozen=True)
class Encoded(Appearance):
    """An Appearance with a target pose: pose (B, C, h, w), added to the output of conv_in."""

    pose: Tensor = field(kw_only=True)


class MCLD(nn.Module):
    """The method: embeddings, texture latent and DensePose picture to injections.

    `reference_unet` holds the weights of the reference network by diffusers parameter name; the network itself is a
    `ReferenceNetwork` of whoever runs the UNet: `reference()` for diffusers, the host's own class in the host. Before
    training, fill it from the base with `start_reference`.
    """

    def __init__(self, config: MCLDConfig = MCLDConfig()) -> None:
        super().__init__()
        self.config = config
        self.pose_guider = PoseGuider(config.unet_widths[0], config.pose_widths)
        self.face_projector = FaceProjector(config.face_width, config.prompt_width, config.face_dim, config.face_depth,
                                            config.face_head_width, config.face_heads, config.face_tokens, config.face_ff)
        self.face_attention = FaceAttention(config.unet_widths, config.prompt_width)
        self.reference_unet = WeightTree(self.reference_weight_shapes())
        if config.vision:
            self.vision = Vision(config)

    # --- encoding -------------------------------------------------------------------------------------------

    def encode_face(self, face: Tensor | None) -> Tensor:
        """Face-recognition embedding (B, 512) or (B, N, 512), as the recogniser gives it, not normalised -> (B, 16, X).

        None, or a row of zeros, is the method's "no face"; the projector makes tokens of it that are not zero.
        """
        if face is None:
            face = self.face_projector.latents.new_zeros(1, 1, self.config.face_width)
        return self.face_projector(_tokens(face, self.config.face_width, "the face embedding"))

    def encode_pose(self, pose: Tensor) -> Tensor:
        """pose (B, 3, H, W) in [0, 1], as `pose_pictures` makes it -> (B, C, H / 8, W / 8)."""
        stride = self.config.pose_stride
        if pose.ndim != 4 or pose.shape[1] != 3 or pose.shape[2] % stride or pose.shape[3] % stride:
            raise ValueError(f"the pose picture has shape {tuple(pose.shape)}; expected (B, 3, H, W) with sides that are "
                             f"multiples of {stride}, at {stride} times the size of the latents")
        return self.pose_guider(pose)

    def encode_appearance(self, image: Tensor, texture: Tensor | None = None, texture_latent: Tensor | None = None,
                          face: Tensor | None = None, reference: ReferenceNetwork | None = None) -> Appearance:
        """Everything about the source person. Compute it once for many poses.

        image, texture: (B, X) or (B, 1, X) (N tokens where config.image_tokens is N), CLIP image embeddings (projected,
        not normalised) of the source photo and of the texture map; image is also what the reference network sees as its
        context. texture_latent: (B, 4, h, w), VAE mean of the texture map times 0.18215, for `reference`. face: see
        `encode_face`. Any batch may be 1.

        What is left out is the method's null: no texture is a zero token, no texture_latent no reference features, as
        in the unconditional row; no face a zero embedding, as for photos without a face. Raises ValueError for
        embeddings of another length, batches that do not go together and a latent without a network to read it.
        """
        width, count = self.config.prompt_width, self.config.image_tokens
        image = _tokens(image, width, "the source photo's CLIP embedding", count)
        texture = torch.zeros_like(image) if texture is None else _tokens(
            texture, width, "the texture map's CLIP embedding", count)
        tokens = self.encode_face(face).to(image.dtype)
        given = {} if texture_latent is None else {"texture latents": texture_latent}
        _common_batch(sources=image, textures=texture, faces=tokens, **given)
        features = {}
        if texture_latent is not None:
            features = self.reference_features(image, texture_latent, reference)
        return Appearance(image, texture, tokens, features)

    def reference_features(self, image: Tensor, latent: Tensor, reference: ReferenceNetwork | None) -> dict[str, Tensor]:
        """What the reference network makes of texture latents (B, 4, h, w), beside tokens I (B, N, X) of the photo: site ->
        (B, HW', C). Either batch may be 1. Raises ValueError as `encode_appearance`."""
        if reference is None:
            raise ValueError("a texture latent came without a reference network to read it; give reference= (for diffusers "
                             "`ReferenceWriter(method.reference())`), or leave both out")
        if latent.ndim != 4 or latent.shape[1] != self.config.latent_channels:
            raise ValueError(f"the texture latent has shape {tuple(latent.shape)}; expected "
                             f"(B, {self.config.latent_channels}, h, w), the texture map through the VAE")
        batch = max(image.shape[0], latent.shape[0])
        features = reference(latent.expand(batch, -1, -1, -1), image.expand(batch, -1, -1))
        lacking = sorted(set(SITES) ^ set(features))
        if lacking:
            raise ValueError(f"the reference network's sites differ from ours by {lacking}; expected all {len(SITES)}")
        return {site: through_float16(x) if self.config.reference_float16 else x for site, x in features.items()}

    def encode(self, image: Tensor, pose: Tensor, texture: Tensor | None = None, texture_latent: Tensor | None = None,
               face: Tensor | None = None, reference: ReferenceNetwork | None = None) -> Encoded:
        """`encode_appearance` with the pose picture (B, 3, H, W) of `encode_pose`."""
        return self.encode_appearance(image, texture, texture_latent, face, reference).with_pose(self.encode_pose(pose))

    @staticmethod
    def blended(first: Encoded, second: Encoded, weights: Tensor) -> Encoded:
        """Two people's tokens and reference features, linearly, in the first one's pose; ours, not the paper's. weights:
        (N,); the row of each pair stands together. Raises ValueError as `parts.mixing.Mixing`, and where one of the two has
        a texture or a face weight that the other has not."""
        if first.reference.keys() != second.reference.keys() or first.face_weight != second.face_weight:
            came = " and ".join(f"{'a' if one.reference else 'no'} texture, face_weight {one.face_weight:g}"
                                for one in (first, second))
            raise ValueError(f"the two appearances have {came}; expected both alike. Give both a texture or neither, and "
                             "one face_weight")
        widest = [max([one.image, one.texture, one.face], key=len) for one in (first, second)]
        mix = Mixing.of(weights, *widest, len(first.pose))
        return replace(first, image=mix.linear(first.image, second.image), texture=mix.linear(first.texture, second.texture),
                       face=mix.linear(first.face, second.face), pose=mix.kept(first.pose),
                       reference={site: mix.linear(value, second.reference[site])
                                  for site, value in first.reference.items()})

    # --- injections -----------------------------------------------------------------------------------------

    guidance_modes = ("down_full",)

    def injections(self, encoded: Encoded) -> Injections:
        """All conditions."""
        return self._injections(encoded.image, encoded.texture, encoded.face, encoded)

    def null_injections(self, encoded: Encoded) -> Injections:
        """The unconditional row: zero tokens everywhere, the face's too, no reference features; the pose stays."""
        image, texture, face = (torch.zeros_like(each[:1]) for each in (encoded.image, encoded.texture, encoded.face))
        return self._injections(image, texture, face, replace(encoded, reference={}))

    def _injections(self, image: Tensor, texture: Tensor, face: Tensor, encoded: Encoded) -> Injections:
        """Tokens (B or 1, N, X) to the stages, by config.aggregation; the rest as it is encoded."""
        config, branch = self.config, {}
        batch = max(image.shape[0], texture.shape[0], face.shape[0])
        image, texture, face = (x.expand(batch, -1, -1) if x.shape[0] == 1 else x for x in (image, texture, face))
        both = torch.cat([image, texture], dim=1)
        if config.aggregation == "stages":
            context = {"down": image, "mid": both, "up": texture}
            branch = self._face_branch(face, encoded.face_weight) if config.use_face else {}
        elif config.aggregation == "image":
            context = everywhere(image)
        else:
            context = everywhere(torch.cat([both, face], dim=1) if config.use_face else both)
        return Injections(context=context, extra_attention=branch, self_reference=encoded.reference, stem=encoded.pose,
                          self_reference_parts=encoded.reference_parts)

    def _face_branch(self, tokens: Tensor, weight: float) -> dict[str, ExtraAttention]:
        if weight == 0:
            return {}
        branch = {}
        for site in SITES:
            to_k, to_v = self.face_attention.projections(site)
            # Where the tokens are: in the host these wait on the CPU while the encoders may be on the GPU.
            branch[site] = ExtraAttention(tokens, to_k.to(tokens), to_v.to(tokens), weight)
        return branch

    def guidance(self, encoded: Encoded, mode: str = "down_full", **scales: float) -> Guidance:
        """pose + appearance * (pose+appearance - pose): the method's only chain, since its unconditional row keeps the
        pose. The scale `appearance` is the authors' 3.5 unless given. Raises ValueError for another mode, and for a scale
        that it does not use."""
        check_scales(mode, self.guidance_scales(mode), scales)
        return Guidance((Term("pose", self.null_injections(encoded)),
                         Term("pose+appearance", self.injections(encoded), scales.get("appearance", GUIDANCE_WEIGHT))))

    @classmethod
    def guidance_scales(cls, mode: str) -> list[str]:
        """Names of the scales that a mode of `guidance` uses. Raises ValueError for an unknown mode."""
        if mode not in cls.guidance_modes:
            raise ValueError(f"unknown guidance mode {mode!r}; expected {cls.guidance_modes[0]!r}, MCLD's only one")
        return ["appearance"]

    def forward(self, image: Tensor, pose: Tensor, texture: Tensor | None = None, texture_latent: Tensor | None = None,
                face: Tensor | None = None, reference: ReferenceNetwork | None = None) -> Injections:
        """`encode`, then `injections`: distributed wrappers only see calls of forward."""
        return self.injections(self.encode(image, pose, texture, texture_latent, face, reference))

    def noise_schedule(self) -> NoiseSchedule | None:
        """What the denoising UNet is sampled on; None: that of the base model."""
        return sampling_schedule() if self.config.schedule == "authors" else None

    # --- the UNets' side ------------------------------------------------------------------------------------

    def unet_weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """diffusers parameter name -> shape of the denoising UNet's weights that belong to the method; MCLD trains all
        686 (config.trained_unet)."""
        every = self._unet_shapes()
        return {name: shape for name, shape in every.items()
                if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.config.trained_unet)}

    def _unet_shapes(self) -> dict[str, tuple[int, ...]]:
        return unet_shapes(self.config.unet_widths, self.config.prompt_width, channels=self.config.latent_channels)

    def trainable_unet_weights(self) -> tuple[str, ...]:
        """The diffusers parameter names of `unet_weight_shapes`."""
        return tuple(self.unet_weight_shapes())

    def reference_weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The same for the reference network, which lacks the final norm and convolution: 682."""
        return {name: shape for name, shape in self._unet_shapes().items()
                if not name.startswith(("conv_norm_out.", "conv_out."))}

    def frozen_reference_weights(self) -> tuple[str, ...]:
        """The names of the reference network's weights that are not trained: its last up block, 114 of 682."""
        return tuple(name for name in self.reference_weight_shapes() if name.startswith("up_blocks.3."))

    def start_reference(self, unet_weights: Mapping[str, Tensor]) -> None:
        """Copies the base UNet's weights, by diffusers parameter name, into the reference network.

        Raises ValueError naming what is missing or of another shape.
        """
        own = self.reference_unet.named()
        wrong = [name for name, value in own.items()
                 if name not in unet_weights or unet_weights[name].shape != value.shape]
        if wrong:
            raise ValueError(f"{len(wrong)} of {len(own)} weights of the base are missing or of another shape: {wrong[:10]}"
                             f"; expected a UNet of widths {self.config.unet_widths}")
        self.reference_unet.load_state_dict({name: unet_weights[name] for name in own})

    def take_reference(self) -> dict[str, Tensor]:
        """The reference network's weights by diffusers parameter name, which this module holds no longer: for a host
        that runs them in a network of its own."""
        weights = {name: value.detach() for name, value in self.reference_unet.named().items()}
        self.reference_unet = WeightTree({})
        return weights

    def reference(self) -> nn.Module:
        """A diffusers UNet that shares the weights of `reference_unet`, for a `ReferenceWriter`."""
        return build_reference_unet(self.reference_unet.named(), self.config.unet_widths, self.config.prompt_width,
                                    self.config.unet_heads, self.config.unet_groups, self.config.latent_channels)


def _tokens(embedding: Tensor, width: int, what: str, count: int | None = None) -> Tensor:
    """(B, width) or (B, N, width) -> (B, N, width), N any number unless `count` says which."""
    wrong_count = embedding.ndim == 3 and count is not None and embedding.shape[1] != count
    if embedding.ndim not in (2, 3) or embedding.shape[-1] != width or wrong_count:
        raise ValueError(f"{what} has shape {tuple(embedding.shape)}; expected (B, {width}) or "
                         f"(B, {count or 'N'}, {width}): use the encoder that this checkpoint was trained with")
    return embedding if embedding.ndim == 3 else embedding[:, None]


def _common_batch(**tensors: Tensor) -> int:
    """The batch size that all have which do not have 1. Raises ValueError stating all when there are several."""
    sizes = {name: tensor.shape[0] for name, tensor in tensors.items()}
    if len(set(sizes.values()) - {1}) > 1:
        raise ValueError(f"{', '.join(f'{size} {name}' for name, size in sizes.items())}; expected equal numbers, or one")
    return max(sizes.values())
