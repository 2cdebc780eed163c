"""Data set items against the authors' code (golden case cfld/dataset)."""

import pytest
import torch
from PIL import Image

from training.data.deepfashion import DeepFashion, flat_name, open_picture, picture_tensor


@pytest.fixture(scope="module")
def case(load_case):
    return load_case("cfld", "dataset")


@pytest.fixture(scope="module")
def root(case, tmp_path_factory):
    """The data set of the case on disk, in CFLD's layout."""
    golden, info = case
    root = tmp_path_factory.mktemp("deepfashion")
    rows = info["config"]["annotation_csv"].splitlines()[1:]
    for split in ("train", "test"):
        folder = root / f"{split}_highres"
        folder.mkdir()
        for number, row in enumerate(rows):
            # PNG inside, so that the pixels are those of the case; Pillow goes by the content, not the name.
            Image.fromarray(golden[f"in.image_{number}"].numpy()).save(folder / row.split(":")[0], format="PNG")
        (root / f"fasion-resize-pairs-{split}.csv").write_text(info["config"]["pairs_csv"])
        (root / f"fasion-resize-annotation-{split}.csv").write_text(info["config"]["annotation_csv"])
    return root


@pytest.fixture(scope="module")
def settings(case):
    sizes = case[1]["config"]["sizes"]
    return {"image_size": sizes["gt"], "encoder_size": sizes["cond"], "pose_size": sizes["pose"]}


def test_items_of_both_splits_equal_the_authors(case, root, settings, compare):
    golden, info = case
    index = info["config"]["pair_index"]
    test, train = (DeepFashion(root, split, **settings) for split in ("test", "train"))
    target = root / "test_highres" / test.pairs[index][1]
    test, plain, flipped = test.item(index), train.item(index), train.item(index, flip=True)
    assert torch.equal(plain["source"], flipped["source"])
    assert torch.equal(plain["source_pose"], flipped["source_pose"])
    measured = info["config"]["sizes"]["test"]
    real = torch.stack([picture_tensor(open_picture(path), measured) for path in sorted((root / "train_highres").iterdir())])
    ours = {
        "out.test.img_src": test["source"],
        "out.test.img_tgt": test["target"],
        "out.test.img_gt": picture_tensor(open_picture(target), measured),
        "out.test.img_cond_from": test["source_encoder"],
        "out.test.pose_img_from": test["source_pose"],
        "out.test.pose_img_to": test["target_pose"],
        "out.train.img_cond_plain": plain["source_encoder"],
        "out.train.img_cond_flipped": flipped["source_encoder"],
        "out.train.img_src": flipped["source"],
        "out.fid_real": real[real.sum((1, 2, 3)).argsort()],  # the case is sorted by the sum of the picture
    }
    compare(ours, golden, {"out.*": 1e-6})


def test_both_spellings_of_the_file_names_are_read(root, tmp_path):
    for path in root.iterdir():
        (tmp_path / path.name.replace("fasion", "fashion")).symlink_to(path)
    assert DeepFashion(tmp_path, "train").pairs == DeepFashion(root, "train").pairs


def test_missing_pictures_and_rows_are_listed_with_their_count(root, tmp_path):
    for path in root.iterdir():
        (tmp_path / path.name).symlink_to(path)
    pairs = "".join(f"lost{number:02}.jpg,lost{number + 1:02}.jpg\n" for number in range(15))
    (tmp_path / "fasion-resize-pairs-test.csv").unlink()
    (tmp_path / "fasion-resize-pairs-test.csv").write_text("from,to\n" + pairs)
    message = r"name 16 pictures; 32 files or annotation rows.*file lost09\.jpg; \.\.\."
    with pytest.raises(FileNotFoundError, match=message) as error:
        DeepFashion(tmp_path, "test")
    assert str(error.value).count("lost") == 10


def test_flat_names_follow_the_authors_tool():
    flat = flat_name("fashion/WOMEN/Blouses_Shirts/id_00001530/02_7_additional.jpg")
    assert flat == "fashionWOMENBlouses_Shirtsid0000153002_7additional.jpg"
    with pytest.raises(ValueError, match="not a DeepFashion path"):
        flat_name("02_7_additional.jpg")
