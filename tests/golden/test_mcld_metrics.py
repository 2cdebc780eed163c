"""MCLD's inputs and metrics against the authors' code (golden cases mcld/...)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pgpis_models.mcld.config import MCLDConfig
from pgpis_models.mcld.pixels import clip_pixels
from pgpis_models.metrics import papers_resize_quantise, psnr, ssim_gauss, ssim_win51
from pgpis_models.surface.densepose import IUV, pose_pictures
from training.data.deepfashion import picture_tensor
from training.evaluation.faces import similarity
from training.evaluation.frechet import frechet_distance, inception_input
from training.tasks.mcld import face_mask, parts_of_pose


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def test_pictures_become_the_authors_inputs(load_case, compare):
    golden, _ = load_case("mcld", "dataset")
    size = MCLDConfig().image_size
    source, target, texture = (Image.fromarray(np.ascontiguousarray(golden[f"in.{name}_bgr"].numpy()[..., ::-1]))
                               for name in ("source", "target", "texture"))
    pose = pose_pictures([IUV.from_picture(golden["in.target_iuv"].numpy())], size)

    def clip(picture):
        squashed = picture.resize(size[::-1], Image.Resampling.BICUBIC)
        return clip_pixels(np.array(squashed)[None])[0]

    def strided(tensor):
        return tensor[:, ::4, ::4]

    ours = {
        "out.clip_images": clip(source),
        "out.clip_images2_strided4": strided(clip(texture)),
        "out.tgt_pose_strided4": strided(pose[0]),
        "out.ref_img_strided4": strided(picture_tensor(texture, size) * 2 - 1),
        "out.img_strided4": strided(picture_tensor(target, size) * 2 - 1),
        "out.gt_256_strided4": strided(picture_tensor(target, (256, 176))),
        "out.face_emb": torch.zeros(1, MCLDConfig().face_width),  # the case has no face file
        "out.face_mask": face_mask(parts_of_pose(pose), MCLDConfig().latent_size).byte(),
    }
    compare(ours, golden, {"out.face_mask": 0, "out.face_emb": 0, "out.[cgirt]*": 1e-6})


def formula_weights(module: nn.Module) -> nn.Module:
    """Fills the parameters, sorted by name, as `formula_weights` in the case's JSON says."""
    for index, (name, value) in enumerate(sorted(module.named_parameters())):
        place = torch.arange(value.numel(), dtype=torch.float64)
        s = torch.sin(place * 12.9898 + (index + 1) * 78.233).reshape(value.shape)
        if value.ndim >= 2:
            s = s * (3 / value[0].numel()) ** 0.5
        else:
            s = 1 + 0.1 * s if name.endswith("weight") else 0.05 * s
        value.copy_(s)
    return module.eval()


def lpips_alex(features: nn.Sequential, heads, first, second):
    """LPIPS v0.1 (Zhang et al. 2018) of pictures in [0, 1]: weighted squared distance of unit feature vectors."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
    a, b = ((x * 2 - 1 - shift) / scale for x in (first, second))
    total, heads = 0.0, iter(heads)
    for layer in features:
        a, b = layer(a), layer(b)
        if isinstance(layer, nn.ReLU):
            difference = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
            total = total + F.conv2d((difference[0] - difference[1]).square(), next(heads)).mean((2, 3))
    return total


def test_metrics_equal_the_authors(load_case, compare):
    torchvision = pytest.importorskip("torchvision")
    golden, info = load_case("mcld", "metrics")
    target, prediction = golden["in.gt"] / 255, golden["in.pred"] / 255

    inception = formula_weights(torchvision.models.inception_v3(weights=None, aux_logits=True, transform_input=False,
                                                                init_weights=False))
    assert len(list(inception.parameters())) == info["inception_parameter_count"]
    inception.fc = nn.Identity()
    # The names of LPIPS's wrapper sort as the indices of torchvision's layers do.
    alex = torchvision.models.alexnet(weights=None).features[:12]
    names = sorted(dict(alex.named_parameters()), key=lambda name: (int(name.split(".")[0]), name))
    assert [(name.split(".", 1)[1], list(alex.get_parameter(name.split(".", 1)[1]).shape))
            for name, _ in info["lpips_parameters"]] == [
        (name, shape) for name, (_, shape) in zip(names, info["lpips_parameters"], strict=True)]
    ordered = nn.ModuleDict({f"slice{i}": nn.ModuleDict({name.split(".")[0]: alex[int(name.split(".")[0])]})
                             for i, name in enumerate(names[::2], 1)})
    formula_weights(ordered)
    for layer in alex:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    lins = [golden[f"ref.lpips.lin{index}"] for index in range(5)]

    face_a, face_b = golden["in.face_a"], golden["in.face_b"]
    cosine, distance = similarity(face_a.numpy(), face_b.numpy())
    ours = {
        "out.psnr": psnr(prediction, target)[:, None], "out.ssim": ssim_win51(prediction, target)[:, None],
        "out.ssim_256": ssim_gauss(prediction, target, data_range="prediction")[:, None],
        "out.lpips": lpips_alex(alex, lins, prediction, target),
        "out.fid_features_pred": inception(inception_input(prediction)),
        "out.inception_input_gt_strided4": inception_input(target)[:, :, ::4, ::4],
        "out.fid": torch.tensor([frechet_distance(golden["in.fid_real"], golden["in.fid_fake"])]),
        "out.face_cosine": torch.tensor([cosine]), "out.face_distance": torch.tensor([distance]),
        "out.postprocess_32x22": papers_resize_quantise(golden["in.sample"], golden["out.postprocess_32x22"].shape[-2:]),
    }
    compare(ours, golden, {
        "out.psnr": 1e-4, "out.ssim*": 1e-5, "out.lpips": 1e-4, "out.fid_features_pred": 1e-4,
        "out.inception_input_*": 1e-5, "out.fid": 1e-3, "out.face_*": 1e-4, "out.postprocess_*": 1 / 255 + 1e-7,
    })
