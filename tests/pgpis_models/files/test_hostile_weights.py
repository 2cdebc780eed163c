"""Torch files that are not what torch writes: refused by name, within bounds, and never a wrong tensor."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgpis_models.cfld.convert import convert as convert_cfld
from pgpis_models.files.published import kind_of
from pgpis_models.files.torch_archive import LARGEST_DIRECTORY, LARGEST_TABLE
from pgpis_models.files.torch_states import read_torch_file, read_weights
from pgpis_models.files.torch_table import MOST_OPERATIONS
from pgpis_models.fpdm.convert import convert as convert_fpdm
from pgpis_models.mcld.convert import convert as convert_mcld
from tests.helpers.bounds import bounded

STATE = {"decoder.a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(5).short(), "c": torch.randn(3, 2).T.half()}


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A torch file, and its members."""
    path = tmp_path_factory.mktemp("saved") / "whole.bin"
    torch.save(STATE, path)
    return path.read_bytes(), members(path)


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    """A torch file as before 2020."""
    path = tmp_path_factory.mktemp("saved") / "legacy.bin"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "hostile.bin"


def refused(path, match="hostile.bin"):
    """Every reader of published weights refuses the file by name, within bounds; the listing of files takes it for none."""
    with bounded():
        for inside in ("", "state_dict"):
            with pytest.raises(ValueError, match=match) as caught:
                read_torch_file(path, inside)
            assert "hostile.bin" in str(caught.value) and len(str(caught.value)) < 1500
        kind_of(path)


def zipped(path, content: dict[str, bytes], compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return path


def with_table(path, saved, table: bytes):
    return zipped(path, {name: table if name.endswith("/data.pkl") else value for name, value in saved[1].items()})


def refused_or_whole(path):
    """A damaged file is refused by name, or gives tensors by name; None where it was refused."""
    with bounded():
        kind_of(path)
        try:
            state = read_torch_file(path)
        except ValueError as error:
            assert "hostile.bin" in str(error)
            return None
    assert all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
    return state


@given(st.data())
@settings(max_examples=150)
def test_any_bytes_of_a_torch_file_may_be_wrong(saved, legacy, path, data):
    whole = bytearray(data.draw(st.sampled_from([saved[0], legacy])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    refused_or_whole(path)


@given(st.integers(0, 10 ** 9), st.binary(max_size=40))
@settings(max_examples=100)
def test_a_torch_file_may_end_anywhere(saved, path, at, more):
    whole = saved[0]
    path.write_bytes(whole[:at % len(whole)] + more)
    assert refused_or_whole(path) is None


def test_a_torch_file_of_before_2020_ends_where_it_ended(legacy, path):
    for content in (*(legacy[:at] for at in range(0, len(legacy), 3)), legacy + b"\0"):
        path.write_bytes(content)
        assert refused_or_whole(path) is None


@given(st.data())
@settings(max_examples=250)
def test_any_bytes_of_its_table_may_be_wrong(saved, path, data):
    table = bytearray(next(value for name, value in saved[1].items() if name.endswith("/data.pkl")))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(table) - 1))
        change = data.draw(st.sampled_from(["byte", "cut", "twice", "put in"]))
        table[at:at + 1] = {"byte": data.draw(st.binary(min_size=1, max_size=1)), "cut": b"", "twice": table[at:at + 1] * 2,
                            "put in": data.draw(st.binary(max_size=8))}[change]
    refused_or_whole(with_table(path, saved, bytes(table)))


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
trees = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.sets(plain, max_size=3)
                     | st.dictionaries(plain | st.tuples(plain), inner, max_size=3) | st.frozensets(plain, max_size=2),
                     max_leaves=8)


@given(trees, st.integers(0, 5))
@settings(max_examples=150)
def test_pickles_of_other_things_are_refused(saved, path, tree, protocol):
    with_table(path, saved, pickle.dumps(tree, protocol))
    if tree != {}:
        refused(path)


@given(st.lists(st.sampled_from([bytes([n]) for n in range(256)]), max_size=60).map(b"".join) | st.binary(max_size=60))
@settings(max_examples=250)
def test_random_operations_are_refused(saved, path, operations):
    with_table(path, saved, operations + b".")
    assert not refused_or_whole(path)


KEYS = st.integers() | st.none() | st.tuples(st.integers(), st.text(max_size=3)) | st.binary(max_size=3) | st.floats(0, 1)


@given(KEYS)
@settings(max_examples=60)
def test_keys_that_are_no_names_are_refused(path, key):
    torch.save({key: torch.ones(1), "a": torch.ones(1)}, path)
    refused(path, "entries are not tensors by name|objects other than tensors")


@given(st.dictionaries(st.text(max_size=8), st.tuples(st.sampled_from(
    [torch.float32, torch.float16, torch.int64, torch.bool, torch.bfloat16, torch.complex64]), st.lists(
        st.integers(0, 3), max_size=3), st.booleans()), max_size=4), st.booleans())
@settings(max_examples=100)
def test_whatever_torch_saves_of_tensors_is_read_as_torch_reads_it(path, sizes, zipped):
    state = {name: torch.randn(size).to(kind) for name, (kind, size, _) in sizes.items()}
    state = {name: value.transpose(0, -1) if turned and value.ndim > 1 else value
             for (name, value), (_, _, turned) in zip(state.items(), sizes.values(), strict=True)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found, expected = read_torch_file(path), torch.load(path, weights_only=True)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].stride() == value.stride()
        assert torch.equal(found[name], value)


def nested_tuples(depth: int) -> bytes:
    """A dict whose key is a tuple of two of the tuple before: its hash takes 2 ** depth steps."""
    return b"\x80\x02})q\x00" + b"".join(b"h\x00h\x00\x86r" + struct.pack("<I", 0) for _ in range(depth)) + b"K\x01s."


DECLARED = {   # operation -> the length that it declares, and what follows
    "text": b"X" + b"\xff\xff\xff\x7f", "long text": b"\x8d" + b"\xff" * 7 + b"\x7f", "bytes": b"B" + b"\xff\xff\xff\x7f",
    "long bytes": b"\x8e" + b"\xff" * 7 + b"\x7f", "number": b"\x8b" + b"\xff\xff\xff\x7f", "frame": b"\x95" + b"\xff" * 8,
    "memo": b"Nr" + b"\xff\xff\xff\xff", "memo text": b"Np" + b"9" * 20 + b"\n", "digits": b"L" + b"9" * 100_000 + b"L\n",
    "array": b"\x96" + b"\xff" * 7 + b"\x7f", "nothing": b"", "nested": b"]" * 100_000, "keys": nested_tuples(500)[2:-1],
    "bytearray": b"cbuiltins\nbytearray\nK\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85R",
    "many": b"N" * (MOST_OPERATIONS + 1), "get": b"h\x07", "mark": b"t", "negative": b"T\xff\xff\xff\xff"}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("ends", [True, False])
def test_lengths_that_a_table_declares_cost_nothing(saved, path, name, ends):
    refused(with_table(path, saved, b"\x80\x02" + DECLARED[name] + b"." * ends))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_table_that_unpacks_to_more_than_any_has_is_not_unpacked(path, compression):
    with zipfile.ZipFile(path, "w", compression) as archive:
        with archive.open("a/data.pkl", "w", force_zip64=True) as file:
            for _ in range(17):
                file.write(bytes(LARGEST_TABLE // 16))
    assert path.stat().st_size < LARGEST_TABLE / 10
    refused(path, f"more than {LARGEST_TABLE} bytes")


def test_storages_that_are_packed_are_not_unpacked(saved, path):
    zipped(path, {name: value + bytes(2 ** 20) * ("/data/" in name) for name, value in saved[1].items()},
           zipfile.ZIP_DEFLATED)
    refused(path, "expected .* bytes or more, not compressed")


def test_a_zip_of_endless_members_is_not_listed(path):
    with open(path, "wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2 * LARGEST_DIRECTORY)
        file.seek(0, io.SEEK_END)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2 * LARGEST_DIRECTORY - 4, 4, 0))
    refused(path, "a list of members of")


def test_tensors_may_not_repeat_their_storage_without_end(saved, path):
    """Two names for a tensor of 2 ** 40 entries in four bytes would be compared for hours."""
    torch.save({"a": torch.zeros(1).expand(2 ** 20, 2 ** 20)}, path)
    refused(path, "repeats a storage of 1")


@given(st.sampled_from(["a\\data.pkl", "data.pkl", "a/b/data.pkl", "/data.pkl", "a/DATA.pkl", "a/data.pkl\0"]) | st.text(
    min_size=1, max_size=10))
@settings(max_examples=60)
def test_names_of_members_may_be_anything(saved, path, name):
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    table = next(value for key, value in saved[1].items() if key.endswith("/data.pkl"))
    zipped(path, {name: table})
    refused(path)


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_files_of_any_bytes_are_refused(path, content):
    path.write_bytes(content)
    refused(path)
    with bounded(), pytest.raises(ValueError, match="hostile.bin"):
        read_weights(path)


def test_the_converters_name_the_file(path, tmp_path, saved):
    path.write_bytes(saved[0][:300])
    for convert, count in ((convert_cfld, 2), (convert_mcld, 4), (convert_fpdm, 1)):
        with pytest.raises(ValueError, match="hostile.bin"):
            convert([path] * count, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())
