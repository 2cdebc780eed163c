"""Sequences without ComfyUI: the frames of one source, in chunks, with one noise or many, and the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.command.poses import sequence_poses
from pgpis_models.fpdm.inputs import as_bytes, embed_photos, encode_pictures
from pgpis_models.fpdm.pixels import clip_pixels
from pgpis_models.framing.limbs import surface_of_pose
from pgpis_models.generate import main
from pgpis_models.methods import sequence_encoders
from pgpis_models.noise.samplers import sample_latents, start_noise
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.pipeline import Generator
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.carrying import carried_by
from pgpis_models.unet.attention import attend, first_rows, held
from tests.helpers.fpdm_tiny import write_fpdm
from tests.helpers.tiny import SIZE, write_files

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All demo files, a photo, and a pose file of five frames, the third of them empty."""
    folder = tmp_path_factory.mktemp("work")
    write_files(folder)
    write_fpdm(folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 60, 3)).astype(np.uint8)).save(folder / "person.png")
    frames = to_pose_keypoint(poses(5))
    frames[2] |= {"people": []}
    (folder / "walk.json").write_text(json.dumps(frames))
    (folder / "frames").mkdir()
    for number in (0, 1, 3, 4):
        (folder / "frames" / f"{number:03d}.json").write_text(json.dumps(frames[number]))
    return folder


@pytest.fixture(scope="module")
def generator(folder):
    return Generator(*(folder / f"demo_{name}.safetensors" for name in ("fpdm", "base", "vae")))


def poses(count):
    rng = np.random.default_rng(4)
    start, pace = rng.uniform(15, 45, (18, 2)), rng.uniform(-3, 3, (18, 2))
    return [Keypoints(start + n * pace, np.ones(18, bool), SIZE) for n in range(count)]


def source(seed=4):
    return torch.randint(0, 256, (1, 3, *SIZE), generator=torch.Generator().manual_seed(seed)) / 127.5 - 1


def sequence(generator, frames, **more):
    return torch.cat(list(generator.sequence(source(), frames, **{"steps": 2, "seed": 7} | more)))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_chunks_make_the_pictures_that_single_calls_make(generator, sampler):
    frames = poses(5)
    chunked = sequence(generator, frames, chunk=2, same_noise=False, sampler=sampler)
    alone = torch.cat([generator(source(), [pose], steps=2, seed=7, first=n, sampler=sampler)
                       for n, pose in enumerate(frames)])
    assert chunked.shape == (5, 3, *SIZE) and (chunked - alone).abs().max() < 1e-4
    again = generator(source(), frames[1:2], steps=2, seed=7, first=0, sampler=sampler)[0]
    assert (again - chunked[0]).abs().max() > 0.01   # the pose matters here, so that a frame out of order is seen
    same = sequence(generator, frames, chunk=3, sampler=sampler)
    alone = torch.cat([generator(source(), [pose], steps=2, seed=7, first=0, sampler=sampler) for pose in frames])
    assert (same - alone).abs().max() < 1e-4 and (same[1] - chunked[1]).abs().max() > 0.01


def test_the_source_is_read_once(generator):
    counts = {"source_tower": [], "pose_guider": []}
    hooks = [getattr(generator.method, name).register_forward_pre_hook(lambda _, given, name=name: counts[name].append(
        len(given[0]))) for name in counts]
    sequence(generator, poses(5), chunk=2)
    for hook in hooks:
        hook.remove()
    assert counts == {"source_tower": [1], "pose_guider": [2, 2, 1]}


def test_noise_that_follows_the_body_and_a_held_first_frame_do_not_depend_on_the_chunks(generator):
    frames = poses(5)
    carried = carried_by([surface_of_pose(pose, SIZE) for pose in frames], generator.method.config.latent_size)
    settings = {"carried": carried, "first_frame": 0.7, "sampler": "ddpm"}
    counted = []
    chunked = sequence(generator, frames, chunk=2, callback=lambda _step, _t, x: counted.append(len(x)), **settings)
    whole = sequence(generator, frames, chunk=8, **settings)
    rounding = float((chunked - whole).abs().max())
    assert chunked.shape == (5, 3, *SIZE) and rounding < 1e-4
    assert counted == [2, 2, 2, 2, 1, 1]   # frames, and not the first one again
    plain = sequence(generator, frames, chunk=8, sampler="ddpm")
    assert (whole[0] - plain[0]).abs().max() < 1e-4   # the first frame is as it was
    other = sequence(generator, frames, chunk=8, **settings | {"carried": None})
    changed = (other[1:] - whole[1:]).abs().amax((1, 2, 3))   # the first frame's effect: in the binding's tests
    assert (other[0] - whole[0]).abs().max() < 1e-4 and changed.min() > 10 * rounding, (changed, rounding)
    with pytest.raises(ValueError, match="carried along 5 frames, the poses are 4"):
        sequence(generator, frames[:4], carried=carried)
    with pytest.raises(ValueError, match="strength is 2.5; expected 0 to 2"):
        sequence(generator, frames, first_frame=2.5)


@pytest.mark.parametrize("strength", [0.3, 1.0, 1.6, 2.0])
def test_frames_see_their_own_keys_and_those_of_the_first_frame_of_their_term(strength):
    """Against the attention written out in float64: two terms of three frames."""
    draws = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(6, 5, 8, generator=draws) for _ in range(3))
    rows = first_rows(6, 2)
    assert rows == [0, 0, 0, 3, 3, 3]
    made = held(lambda k, v, _: attend(query, k, v, 2), key, value, rows, strength)

    def plain(row, sources):
        out = torch.zeros(5, 8, dtype=torch.float64)
        for head in (slice(0, 4), slice(4, 8)):
            k, v = (torch.cat([each[source, :, head] for source in sources]).double() for each in (key, value))
            weight = torch.exp(query[row, :, head].double() @ k.T / 2)
            out[:, head] = weight @ v / weight.sum(1, keepdim=True)
        return out
    for row, first in enumerate(rows):
        alone = plain(row, [row] if strength < 1 else [first])
        expected = abs(1 - strength) * alone + (1 - abs(1 - strength)) * plain(row, [row, first])
        assert (made[row] - expected).abs().max() < 1e-5
    assert (made[0] - plain(0, [0])).abs().max() < 1e-5


def test_nothing_is_made_before_it_is_asked_for(generator):
    made = generator.sequence(source(), poses(4), chunk=1, steps=1)
    before = generator.unet.conv_in
    calls = []
    hook = before.register_forward_pre_hook(lambda *_: calls.append(1))
    next(made)
    hook.remove()
    assert len(calls) == 1


def test_what_makes_no_sequence_is_refused(generator):
    with pytest.raises(ValueError, match="2 sources in chunks of 4 frames; expected one source"):
        next(generator.sequence(source().expand(2, -1, -1, -1), poses(2), chunk=4))
    with pytest.raises(ValueError, match="1 sources in chunks of 0 frames"):
        next(generator.sequence(source(), poses(2), chunk=0))
    with pytest.raises(ValueError, match="'fpdm_fusion' does not make pictures"):
        sequence_encoders("fpdm_fusion")


def test_rows_of_one_number_have_one_noise():
    schedule, seen = NoiseSchedule(), []
    sample_latents(lambda x, t: seen.append(x.clone()) or x * 0, schedule, (3, 4, 2, 2), steps=3, seed=9, numbers=[0, 0, 0],
                   sampler="ddpm")
    assert torch.equal(seen[0], start_noise((1, 4, 2, 2), 9).expand(3, -1, -1, -1))
    assert all(torch.equal(x[0], x[2]) for x in seen) and not torch.equal(seen[1], seen[2])


def test_photos_and_poses_reach_the_towers_as_the_authors_make_them(generator):
    method = generator.method
    photo = np.random.default_rng(3).integers(0, 256, (90, 70, 3)).astype(np.uint8)
    read = generator.prepare(photo)
    assert read.shape == (1, 3, *method.config.photo_size)
    assert np.array_equal(as_bytes(read)[0], ((read[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy())
    encoded = encode_pictures(method, read, poses(3), CPU)
    shapes = encoded.tokens.shape, encoded.pose_map.shape, encoded.fusion.shape
    assert shapes == ((1, 16, 64), (3, 32, 8, 8), (3, 24))
    near = embed_photos(method.fusion, read, CPU)
    with torch.no_grad():
        plain = method.fusion.embed(clip_pixels(as_bytes(read), method.config.fusion.image))
    assert torch.allclose(near, plain / plain.norm(dim=1, keepdim=True), atol=1e-6)


# --- the command line ---------------------------------------------------------------------------------------

def command(folder, *more, pose="walk.json", out="film.webp"):
    files = {"checkpoint": "demo_fpdm.safetensors", "base": "demo_base.safetensors", "vae": "demo_vae.safetensors",
             "source": "person.png", "pose": pose, "out": out}
    main([word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
         + ["--device", "cpu", "--steps", "1", "--sequence", *more])


def test_a_film_has_a_frame_per_pose_and_holds_the_empty_one(folder):
    command(folder, "--empty", "hold", "--batch", "2", "--fps", "8")
    command(folder, "--empty", "hold", "--batch", "5", out="film")
    names = sorted(path.name for path in (folder / "film").iterdir())
    assert names == [f"{n:05d}.png" for n in range(5)]
    frames = [np.asarray(Image.open(folder / "film" / name)).astype(int) for name in names]
    assert np.abs(frames[2] - frames[1]).max() <= 1 and np.abs(frames[3] - frames[1]).max() > 1
    with Image.open(folder / "film.webp") as film:
        assert film.n_frames in (4, 5) and film.size == (64, 64)   # equal frames may be kept as one, shown longer


def test_a_folder_of_frames_is_a_sequence_in_the_order_of_names(folder):
    command(folder, pose="frames", out="four")
    assert len(list((folder / "four").iterdir())) == 4
    assert [pose.xy[0, 0] for pose in sequence_poses(folder / "frames")] == \
        [poses(5)[n].xy[0, 0] for n in (0, 1, 3, 4)]


def test_the_command_line_carries_noise_along_and_holds_the_first_frame(folder, generator):
    command(folder, "--noise", "body", "--first-frame", "1", "--batch", "2", "--seed", "7", pose="frames", out="still")
    frames = sequence_poses(folder / "frames")
    carried = carried_by([surface_of_pose(pose, SIZE) for pose in frames], generator.method.config.latent_size)
    photo = generator.prepare(np.asarray(Image.open(folder / "person.png")))
    [made] = generator.sequence(photo, frames, steps=1, seed=7, carried=carried, first_frame=1.0)
    expected = (made.movedim(1, -1).numpy() * 255).round()
    for number, picture in enumerate(expected):
        assert np.abs(np.asarray(Image.open(folder / "still" / f"{number:05d}.png")) - picture).max() <= 1


@pytest.mark.parametrize(("more", "files", "message"), [
    ([], {}, "No person in frame 3 of 5"), ([], {"pose": "frames", "out": "a.png"}, "expected one of .webp, .gif"),
    ([], {"pose": "person.png"}, "person.png is a .png file; expected one of .json"),
    (["--batch", "0"], {"pose": "frames"}, "--batch is 0; expected 1 or more"),
    (["--first-frame", "2.5"], {"pose": "frames"}, "--first-frame is 2.5; expected 0 to 2")])
def test_what_cannot_be_done_is_said_in_one_line(folder, capsys, more, files, message):
    with pytest.raises(SystemExit) as stopped:
        command(folder, *more, **files)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in said and message in said
