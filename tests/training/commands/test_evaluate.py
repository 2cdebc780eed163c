"""Evaluation: the papers' numbers, computed again with scikit-image and NumPy, and nothing pretended."""

import csv
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from training.evaluate import main, measure
from training.evaluation.pairing import Pair, by_stem, listed_pairs, pairs
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.report import markdown

GOLDEN = Path(os.environ.get("PGPIS_GOLDEN", Path(__file__).resolve().parents[4] / "shared" / "golden"))
SAMPLES = GOLDEN.parent / "samples" / "deepfashion"


def smooth(seed, size):
    """A picture with some structure, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 5, 3)).astype(np.uint8))
    return np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Three generated pictures and their targets, 80x64; no network weights to be found."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "made").mkdir()
    (tmp_path / "truth").mkdir()
    for n in range(3):
        truth = smooth(n, (80, 64))
        noise = np.random.default_rng(n + 10).normal(0, 8 + 8 * n, truth.shape)
        Image.fromarray(np.clip(truth + noise, 0, 255).astype(np.uint8)).save(tmp_path / "made" / f"{n}.png")
        Image.fromarray(truth).save(tmp_path / "truth" / f"{n}.png")
    return tmp_path / "made", tmp_path / "truth"


def arrays(folder):
    return [np.asarray(Image.open(path)) / 255 for path in sorted(folder.iterdir())]


def test_measures_equal_scikit_images(folders):
    result, rows = measure(pairs(*folders), (80, 64), batch=2)
    made, truth = map(arrays, folders)
    common = {"channel_axis": 2}
    expected = {
        "psnr": [peak_signal_noise_ratio(b, a, data_range=1) for a, b in zip(made, truth, strict=True)],
        "ssim": [structural_similarity(a, b, win_size=51, data_range=1, **common) for a, b in zip(made, truth, strict=True)],
        "ssim_256": [structural_similarity(a * 255, b * 255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                           data_range=(a * 255).max() - (a * 255).min(), **common)
                     for a, b in zip(made, truth, strict=True)],
    }
    for name, values in expected.items():
        assert np.std(values) > 1e-3 and result[name] == pytest.approx(np.mean(values), abs=1e-6), name
        assert [row[name] for row in rows] == pytest.approx(values, abs=1e-6)
        assert result["spread"][name] == pytest.approx(np.std(values), abs=1e-6) and result["counted"][name] == 3
    assert result["pairs"] == 3 and result["size"] == [80, 64]


def test_cfld_truncates_generated_pictures_and_fpdm_resizes_both_by_pillow(folders):
    """CFLD: generated ones by an antialiased tensor resize and truncation to 8 bit, real ones by Pillow."""
    made, truth = (sorted(folder.iterdir())[0] for folder in folders)
    size = (60, 52)
    tensor = torch.from_numpy(np.asarray(Image.open(made)) / np.float32(255)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", antialias=True)
    expected = np.floor((resized * 255).clamp(0, 255).numpy()) / 255
    pillow, target = (np.asarray(Image.open(path).resize((52, 60), Image.Resampling.BICUBIC)) / 255
                      for path in (made, truth))
    truncated = expected[0].transpose(1, 2, 0)
    for name, picture in {"cfld": truncated, "mcld": truncated, "fpdm": pillow, "standard": pillow}.items():
        assert np.allclose(PROTOCOLS[name].read_generated(made, size)[0].permute(1, 2, 0), picture, atol=1e-6)
        assert np.allclose(PROTOCOLS[name].read_target(truth, size)[0].permute(1, 2, 0), target, atol=1e-6)
        result, _ = measure([Pair(made, truth)], size, protocol=name)
        assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(target, picture, data_range=1), abs=1e-5)
    assert not np.allclose(truncated, pillow)
    papers, _ = measure([Pair(made, truth)], size, protocol="fpdm")
    assert papers["l1"] == pytest.approx(np.abs(pillow - target).mean(), abs=1e-7)
    assert papers["mae"] == pytest.approx(np.abs(pillow - target).sum() / (pillow.sum() + target.sum()), abs=1e-7)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": 2}
    assert result["ssim"] == pytest.approx(structural_similarity(target, pillow, **gaussian), abs=1e-6)
    assert not {"ssim_256", "fid_papers", "fid"} & result.keys() and "fid, kid: needs --real" in " ".join(result["left_out"])


@pytest.mark.parametrize("size, expected", [
    ((256, 176), {"ssim": -0.028041, "ssim_256": 0.289001, "psnr": 7.015044, "l1": 0.404456, "mae": 0.339536}),
    ((512, 352), {"ssim": 0.035458, "ssim_256": 0.307999, "psnr": 6.945630, "l1": 0.406656, "mae": 0.341345})])
def test_fpdm_on_the_authors_own_pictures_gives_their_codes_figures(size, expected):
    """The five generated pictures of FPDM's repository, by its naming, against the photos; figures of its code."""
    if not SAMPLES.is_dir():
        pytest.skip(f"sample photos not found in {SAMPLES}")
    found = pairs(SAMPLES / "generate_ab6_20_0", SAMPLES / "img", SAMPLES / "img")
    assert len(found) == 5 and found[0].target.parent.name == found[0].source.parent.name == "id_00007301"
    result, _ = measure(found, size, protocol="fpdm")
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    if size == (256, 176):
        assert measure(found, size)[0]["psnr"] == pytest.approx(6.9905, abs=1e-4), "CFLD's protocol is another"


def test_what_is_missing_is_named_once_with_page_and_folder(folders, tmp_path):
    result, _ = measure(pairs(*folders), (80, 64), real=folders[1])
    assert not {"lpips", "fid_papers"} & result.keys()
    names = [reason.split(":")[0] for reason in result["left_out"]]
    assert names == ["lpips", "fid_papers", "fs_tgt, dist_tgt, fs_ref, dist_ref"]
    where = f"is not in {tmp_path / 'hub' / 'checkpoints'}; have it from https://download.pytorch.org/models/inception_v3"
    assert where in result["left_out"][1]


class Lpips(torch.nn.Module):
    def forward(self, a, b, normalize):
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


class Inception(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return x.mean((2, 3))


def test_networks_that_are_there_are_used(folders, monkeypatch):
    """Stand-ins for the networks: the numbers are the mean over pairs, and the Frechet distance real to generated."""
    inception = Inception()
    monkeypatch.setattr("training.evaluate.lpips_network", Lpips)
    monkeypatch.setattr("training.evaluate.inception", lambda: inception)
    made, truth = map(arrays, folders)
    result, _ = measure(pairs(*folders), (80, 64), real=folders[1], batch=2)
    distance = np.mean([np.abs(a - b).mean() for a, b in zip(made, truth, strict=True)])
    assert result["lpips"] == pytest.approx(distance, abs=1e-6) and [r for r in result["left_out"] if "fs_" not in r] == []
    assert inception.seen == [(2, 3, 299, 299), (1, 3, 299, 299)] * 2 and result["fid_papers"] > 0
    same, _ = measure(pairs(folders[1], folders[1]), (80, 64), real=folders[1])
    assert same["fid_papers"] == pytest.approx(0, abs=1e-6)


def test_the_standard_distances_are_torch_fidelitys_under_their_own_names(folders, tmp_path, monkeypatch):
    """A stand-in of the package: it gets both sets as bytes; without it, or without its network, they are left out."""
    def calculate_metrics(input1, input2, **settings):
        assert settings["fid"] and settings["kid"] and settings["kid_subset_size"] == 3 and not settings["cuda"]
        assert Path(settings["feature_extractor_weights_path"]).is_file() and input1[0].dtype == torch.uint8
        means = [np.mean([one.float().mean() for one in (pictures[n] for n in range(len(pictures)))])
                 for pictures in (input1, input2)]
        return {"frechet_inception_distance": means[0], "kernel_inception_distance_mean": means[1],
                "kernel_inception_distance_std": 0.5}

    def standard():
        return measure(pairs(*folders), (80, 64), real=folders[1], protocol="standard")[0]
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert "fid, kid: the package torch-fidelity is missing" in " ".join(standard()["left_out"])
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(calculate_metrics=calculate_metrics))
    missing = standard()
    assert "fid" not in missing and sum("weights-inception-2015-12-05" in reason for reason in missing["left_out"]) == 1
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"")
    made, truth = (np.mean([picture.mean() for picture in arrays(folder)]) * 255 for folder in folders)
    result = standard()
    assert (result["fid"], result["kid"], result["kid_deviation"]) == (pytest.approx(made), pytest.approx(truth), 0.5)
    assert "fid_papers" not in result and "| kid |" in markdown(result, "x") and "fid," not in " ".join(result["left_out"])


def test_pairs_are_found_by_the_papers_names_and_by_a_csv(folders, tmp_path):
    made, truth = folders
    photos = tmp_path / "photos" / "a_2_b"
    photos.mkdir(parents=True)
    for number in (0, 1):
        Image.open(truth / f"{number}.png").save(photos / f"0{number}_2_side.jpg")
        (made / f"{number}.png").rename(made / f"a_2_b0{1 - number}_2_side.jpg_2_a_2_b0{number}_2_side.jpg.png")
    (made / "2.png").rename(made / "00_2_side_to_01_2_side.png")
    root = tmp_path / "photos"
    found = {(pair.source.name[:2], pair.target.name[:2]) for pair in pairs(made, root, root)}
    assert len(pairs(made, root)) == 3 and found == {("00", "01"), ("01", "00")}
    (photos.parent / "other").mkdir()
    Image.open(truth / "0.png").save(photos.parent / "other" / "01_2_side.jpg")
    with pytest.raises(ValueError, match=r"fits 2 pairs.*Say the pairs with --pairs"):
        pairs(made, root)
    listing = tmp_path / "pairs.csv"
    listing.write_text("target,generated,source\na_2_b/01_2_side.jpg,00_2_side_to_01_2_side.png,a_2_b/00_2_side.jpg\n")
    expected = Pair(made / "00_2_side_to_01_2_side.png", photos / "01_2_side.jpg", photos / "00_2_side.jpg")
    assert listed_pairs(listing, made, root, root) == [expected]
    listing.write_text("generated,target\n00_2_side_to_01_2_side.png,none.jpg\n")
    with pytest.raises(OSError, match="names 1 pictures that are not there"):
        listed_pairs(listing, made, root)
    with pytest.raises(ValueError, match="expected generated, target, source"):
        listed_pairs(listing, made, root, root)


def test_pictures_without_a_partner_are_listed(folders, tmp_path):
    made, truth = folders
    (made / "1.png").rename(made / "extra.png")
    (truth / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"3 pictures in .*, 2 without a partner of the same name \['1', 'extra'\]"):
        pairs(made, truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 pictures in"):
        pairs(tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        pairs(made, tmp_path / "nowhere")


def test_two_pictures_of_one_name_are_refused_and_suffixes_may_differ_between_folders(folders):
    made, truth = folders
    Image.open(truth / "0.png").save(truth / "0.webp", lossless=True)
    with pytest.raises(ValueError, match="has 0.png and 0.webp; expected one picture of each name"):
        by_stem(truth)
    (truth / "0.png").unlink()
    assert Pair(made / "0.png", truth / "0.webp") in pairs(made, truth)


def test_the_command_prints_a_table_and_writes_json(folders, tmp_path, capsys):
    target = tmp_path / "scores.json"
    main(["--generated", str(folders[0]), "--targets", str(folders[1]), "--size", "80x64", "--json", str(target),
          "--csv", str(tmp_path / "each.csv"), "--markdown", str(tmp_path / "table.md"), "--device", "cpu"])
    result = json.loads(target.read_text())
    assert result["pairs"] == 3 and {"psnr", "ssim", "ssim_256"} <= result.keys()
    row = f"| psnr | {result['psnr']:.4f} | {result['spread']['psnr']:.4f} | 3 |"
    assert row in capsys.readouterr().out and row in (tmp_path / "table.md").read_text()
    with open(tmp_path / "each.csv") as text:
        each = list(csv.DictReader(text))
    assert np.mean([float(one["psnr"]) for one in each]) == pytest.approx(result["psnr"])
    assert each[0]["generated"].endswith("0.png")
    for arguments, message in (([str(tmp_path / "no"), "80x64"], "is not a folder"),
                               ([str(folders[0]), "80"], "--size: is '80'; expected two lengths such as 256x176"),
                               ([str(folders[0]), "40x30"], "expected both sides 51 or more")):
        with pytest.raises(SystemExit) as stopped:
            main(["--generated", arguments[0], "--targets", str(folders[1]), "--size", arguments[1]])
        assert stopped.value.code == 2 and message in capsys.readouterr().err.replace("\n", " ")


def test_the_autoencoders_own_row_and_the_pairs_that_could_not_be_made(folders, files, tmp_path, capsys):
    from pgpis_models.unet.autoencoder import decode_latents, encode_latents, load_vae
    made, truth = folders
    for kind in ("generated", "targets"):
        (tmp_path / "lost" / kind).mkdir(parents=True)
        Image.fromarray(smooth(7 + len(kind), (80, 64))).save(tmp_path / "lost" / kind / "lost.png")
    arguments = ["--generated", str(made), "--targets", str(truth), "--size", "80x64", "--protocol", "fpdm"]
    more = ["--vae", files.vae, "--vae-size", "80x64", "--lost", tmp_path / "lost", "--json", tmp_path / "a.json"]
    main([*arguments, "--device", "cpu", *map(str, more)])
    result = json.loads((tmp_path / "a.json").read_text())
    truths, vae = arrays(truth), load_vae(files.vae)
    with torch.no_grad():
        pictures = torch.from_numpy(np.stack(truths)).permute(0, 3, 1, 2).float()
        decoded = decode_latents(vae, encode_latents(vae, pictures * 2 - 1))
    values = np.round(decoded.clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255) / 255
    own = [peak_signal_noise_ratio(b, a, data_range=1) for a, b in zip(values, truths, strict=True)]
    assert result["autoencoder"]["psnr"] == pytest.approx(np.mean(own), abs=0.02) and result["autoencoder"]["pairs"] == 3
    main([*arguments, "--device", "cpu", "--vae", str(files.vae), "--vae-size", "80x64", "--vae-shift", "0.2",
          "--vae-pictures", str(tmp_path / "kept")])
    with torch.no_grad():
        shifted = decode_latents(vae, encode_latents(vae, pictures * 2 - 1) + 0.2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    kept = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "kept").iterdir())])
    assert np.abs(kept - shifted * 255).max() < 1 and np.abs(kept - values * 255).max() > 3
    target, source = (smooth(7 + len(kind), (80, 64)) / 255 for kind in ("targets", "generated"))
    lost = peak_signal_noise_ratio(target, source, data_range=1)
    assert result["all"]["psnr"] == pytest.approx((3 * result["psnr"] + lost) / 4, abs=1e-4)
    assert result["all"]["pairs"] == 4
    said = capsys.readouterr().out
    assert "The autoencoder's own reconstruction of the targets, 3 pairs:" in said
    assert "All pairs, those that could not be made" in said
    with pytest.raises(SystemExit):
        main([*arguments, "--vae", str(files.vae), "--vae-size", "81x64"])
    assert "--vae-size is 81x64; expected multiples of 8" in capsys.readouterr().err


class Recogniser:
    """A stand-in of insightface: 512 sums of the picture's rows; a second, smaller face; none in dark pictures."""

    def get(self, bgr):
        if bgr.mean() < 60:
            return []
        values = np.resize(bgr[..., ::-1].astype(np.float64).sum((1, 2)), 512)
        small = SimpleNamespace(bbox=np.array([0, 0, 2, 2]), embedding=np.ones(512, np.float32))
        return [small, SimpleNamespace(bbox=np.array([0, 0, 9, 9]), embedding=values.astype(np.float32))]


def test_faces_are_the_largest_ones_and_pictures_without_are_counted(folders, tmp_path):
    """Against the source, against the target, and the row of real pictures, in float64 from the pictures themselves."""
    made, truth = folders
    sources = tmp_path / "sources"
    sources.mkdir()
    for n in range(3):
        Image.fromarray(smooth(n + 40, (80, 64))).save(sources / f"{n}.png")
    Image.fromarray(np.zeros((80, 64, 3), np.uint8)).save(truth / "1.png")
    Image.fromarray(np.zeros((80, 64, 3), np.uint8)).save(sources / "2.png")
    result, rows = measure(pairs(made, truth, sources), (80, 64), faces=Recogniser(), protocol="mcld")
    vectors = {kind: [np.resize((p[None][0] * 255).sum((1, 2)), 512) for p in arrays(folder)]
               for kind, folder in (("made", made), ("truth", truth), ("source", sources))}
    for names, a, b, counted in ((("fs_tgt", "dist_tgt"), "made", "truth", (0, 2)),
                                 (("fs_ref", "dist_ref"), "made", "source", (0, 1)),
                                 (("ref_fs_tgt", "ref_dist_tgt"), "truth", "source", (0,))):
        found = [(vectors[a][n], vectors[b][n]) for n in counted]
        cosine = np.mean([np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)) for x, y in found])
        distance = np.mean([np.sqrt(((x - y) ** 2).sum()) for x, y in found])
        assert result[names[0]] == pytest.approx(cosine, abs=1e-6) and cosine < 1 - 1e-6
        assert result[names[1]] == pytest.approx(distance, rel=1e-5) and result["counted"][names[0]] == len(counted)
    assert result["without_face"] == {"generated": 0, "target": 1, "source": 1} and "fs_tgt" not in rows[1]
    alone, _ = measure(pairs(made, truth), (80, 64), faces=Recogniser())
    assert "fs_ref" not in alone and alone["fs_tgt"] == result["fs_tgt"]


def test_a_pair_that_could_not_be_made_has_its_own_photo_as_source(folders, tmp_path, monkeypatch):
    (made, truth), photo = folders, smooth(31, (80, 64))
    for kind, picture in (("generated", photo), ("targets", smooth(32, (80, 64)))):
        (tmp_path / "lost" / kind).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "lost" / kind / "lost.png")
    monkeypatch.setattr("training.evaluate.load_app", lambda *_, **__: Recogniser())
    main(["--generated", str(made), "--targets", str(truth), "--sources", str(truth), "--size", "80x64", "--faces", "here",
          "--protocol", "mcld", "--device", "cpu", "--lost", str(tmp_path / "lost"), "--json", str(tmp_path / "a.json")])
    result = json.loads((tmp_path / "a.json").read_text())
    assert result["counted"]["dist_ref"] == 3 and result["all"]["counted"]["dist_ref"] == 4
    assert result["all"]["dist_ref"] == pytest.approx(result["dist_ref"] * 3 / 4)   # the photo is no way from itself
    assert result["all"]["dist_tgt"] > 0
