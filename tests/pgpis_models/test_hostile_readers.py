"""Pose, keypoint and embedding files that are not what they should be: one ValueError that names the file, within bounds."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgpis_models.body.state import from_text
from pgpis_models.files.reading import LARGEST
from pgpis_models.poses.by_hand import edited_frames
from pgpis_models.poses.files import load_poses
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.poses.padded_rows import parse_fpdm_txt
from pgpis_models.surface.face import LENGTH, load_embedding
from pgpis_models.unet.base import load_unet
from tests.helpers.bounds import bounded

CANVAS = (256, 176)
WHOLE = np.random.default_rng(0).uniform(1, 150, (2, 133, 3))
FRAME = {"people": [{"pose_keypoints_2d": [1.0, 2.0, 1.0] * 18}], "canvas_height": 256, "canvas_width": 176}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def read(path):
    """All that a pose file goes through; None where it is refused by name."""
    with bounded():
        try:
            frames = load_poses(path, CANVAS)
        except ValueError as error:
            assert path.name in str(error) and len(str(error)) < 2000
            return None
        try:
            return from_pose_keypoint(frames, empty="nobody")
        except ValueError as error:   # of the frames in it, which nodes say with the name of their input
            assert len(str(error)) < 2000
            return None


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@given(st.data())
@settings(max_examples=200)
def test_any_bytes_of_an_array_file_may_be_wrong(folder, data):
    content = bytearray(npy(WHOLE))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 130) | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "points.npy"
    path.write_bytes(content[:data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    read(path)
    with bounded(), pytest.raises(ValueError, match="points.npy"):
        load_embedding(path)


DTYPES = st.sampled_from(["<f8", ">f4", "<i8", "|b1", "|O", "<U9", "<U999999999", "<c16", "|V999999999", "<M8[s]", "<f9"])


@given(st.one_of(DTYPES, st.text(max_size=5)), st.lists(st.integers(-2, 10 ** 20), max_size=5), st.booleans(),
       st.integers(0, 3))
@settings(max_examples=250)
def test_a_header_may_declare_anything(folder, dtype, shape, fortran, version):
    header = repr({"descr": dtype, "fortran_order": fortran, "shape": tuple(shape)}).encode("utf-8", "surrogatepass")
    length = len(header).to_bytes(2 if version < 2 else 4, "little")
    path = folder / "points.npy"
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + header + b"\n" + bytes(64))
    assert read(path) is None
    with bounded(), pytest.raises(ValueError, match="points.npy"):
        load_embedding(path)


@pytest.mark.parametrize("content", [
    b"", b"\x93NUMPY", b"PK\x03\x04", npy(WHOLE)[:200], npy(np.array([{}], dtype=object)), npy(np.array("text")),
    b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, b"\x93NUMPY\x02\x00\xff\xff\xff\xff", b"\x80\x04."], ids=repr)
def test_arrays_that_are_empty_cut_or_of_other_things(folder, content):
    path = folder / "points.npy"
    path.write_bytes(content)
    assert read(path) is None
    with bounded(), pytest.raises(ValueError, match="points.npy"):
        load_embedding(path)


def test_archives_of_arrays_are_refused_unread(folder):
    """A member that unpacks to 256 MB."""
    path = folder / "points.npy"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(16):
            file.write(bytes(2 ** 24))
    assert read(path) is None
    with bounded(), pytest.raises(ValueError, match="points.npy is an .npz archive"):
        load_embedding(path)


@given(st.sampled_from([(LENGTH,), (1, LENGTH), (LENGTH, 1)]), st.sampled_from(["<f8", ">f4", "<f2", "<i4"]))
@settings(max_examples=20)
def test_arrays_of_any_order_of_bytes_are_read(folder, shape, dtype):
    values = (np.arange(LENGTH) % 100).astype(dtype)
    np.save(folder / "face.npy", values.reshape(shape))
    assert np.array_equal(load_embedding(folder / "face.npy"), values.astype(np.float32))


numbers = st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=3) | st.sampled_from([10 ** 400, -1])
anything = st.recursive(numbers, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
    ["people", "pose_keypoints_2d", "canvas_width", "canvas_height", "x"]) | st.text(max_size=3), inner, max_size=4),
    max_leaves=10)


@given(anything)
@settings(max_examples=250)
def test_any_json_is_a_pose_or_refused_by_name(folder, content):
    path = folder / "pose.json"
    path.write_text(json.dumps(content))
    read(path)
    for edit in (edited_frames, from_text):
        with bounded():
            try:
                edit(path.read_text(), *([CANVAS] if edit is edited_frames else []))
            except ValueError as error:
                assert len(str(error)) < 2000


@given(st.data())
@settings(max_examples=250)
def test_a_frame_with_one_thing_changed_is_a_pose_or_refused(folder, data):
    frame = json.loads(json.dumps(FRAME))
    place = data.draw(st.sampled_from(["frame", "side", "people", "person", "joints", "joint"]))
    value = data.draw(anything)
    flat = frame["people"][0]["pose_keypoints_2d"]
    if place == "frame":
        frame = [frame, value]
    elif place == "side":
        frame[data.draw(st.sampled_from(["canvas_width", "canvas_height"]))] = value
    elif place == "people":
        frame["people"] = value
    elif place == "person":
        frame["people"][0] = value
    elif place == "joints":
        frame["people"][0]["pose_keypoints_2d"] = value
    else:
        flat[data.draw(st.integers(0, len(flat) - 1))] = value
    path = folder / "pose.json"
    path.write_text(json.dumps(frame))
    for pose in read(path) or []:
        assert pose.xy.shape == (18, 2) and np.isfinite(pose.xy[pose.present]).all()


@given(st.integers(0, 10 ** 6), st.binary(max_size=6))
@settings(max_examples=150)
def test_json_may_end_anywhere_and_hold_any_bytes(folder, at, more):
    content = json.dumps([FRAME, FRAME]).encode()
    at %= len(content)
    path = folder / "pose.json"
    path.write_bytes(content[:at] + more)
    assert read(path) is None
    path.write_bytes(content[:at] + more + content[at:])
    read(path)


@given(st.lists(st.text(alphabet="0123456789.,-+eE :[]\"abn\n", max_size=40), max_size=20).map("\n".join)
       | st.text(max_size=60) | st.integers(0, 60).map(lambda count: "\n".join(["a.jpg: [1]: [2]"] * count)),
       st.sampled_from(["pose.txt", "pose.csv"]))
@settings(max_examples=250)
def test_any_text_is_a_pose_or_refused_by_name(folder, text, name):
    path = folder / name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    read(path)
    with bounded():
        try:
            parse_fpdm_txt(text, name)
        except ValueError as error:
            assert name in str(error)


@pytest.mark.parametrize("name", ["pose.json", "pose.txt", "pose.csv"])
@pytest.mark.parametrize("content", [
    b"", b"\xff\xfe\x00", b"[" * 200_000, b"[[" * 100_000, b"{\"a\":" * 100_000, b"9" * 100_000,
    b"[[" + b"1" * 5000 + b"]]", b"[[1e999]]", b"[[1" + b"0" * 400 + b"]]"], ids=lambda value: repr(value[:12]))
def test_text_that_is_empty_nested_or_endless(folder, name, content):
    (folder / name).write_bytes(content)
    assert read(folder / name) is None


@pytest.mark.parametrize("name", ["pose.json", "pose.txt", "pose.csv", "numbers.json"])
def test_text_larger_than_any_pose_is_not_read(folder, name):
    with open(folder / name, "wb") as file:
        file.write(b"[[" if name == "numbers.json" else b"{")
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match="67,108,865 bytes"):
        load_poses(folder / name, CANVAS)
    assert read(folder / name) is None
    (folder / name).unlink()


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\"epsilon\""], ids=lambda value: value[:5])
def test_the_settings_of_a_scheduler_name_the_folder(tmp_path, content):
    for part in ("unet", "scheduler"):
        (tmp_path / part).mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(content)
    with bounded(), pytest.raises(ValueError, match=str(tmp_path)):
        load_unet(tmp_path)
