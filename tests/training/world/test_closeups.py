"""The demo's sheet shows everybody, and enlarges faces and hands where they are."""

import numpy as np
import pytest
import torch

from training.world.bank import Bank
from training.world.closeups import FACE, GAP, HAND, LABEL, PER_LINE, closeups, sheet
from training.world.measures import SOURCE_VIEW, TARGET_VIEW

SIZE = (64, 48)
SIDE = (SIZE[1] - GAP) // 2                         # of a close-up
CELL = (SIZE[0] + SIDE + 3 * GAP, SIZE[1] + GAP)    # height and width of a person's place in a column
RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 255


def bank_of(people: int) -> Bank:
    """Faces in the upper left of sources and in the upper right of targets; of the wrists the right one is nearer to the
    middle, its forearm level."""
    eyes = np.zeros((people, 2, 2, 2), np.float32)
    eyes[:, SOURCE_VIEW], eyes[:, TARGET_VIEW] = [[10, 9], [14, 9]], [[34, 9], [38, 9]]
    keypoints = np.zeros((people, 2, 18, 2), np.float32)
    keypoints[:, :, 3], keypoints[:, :, 4] = (10, 40), (20, 40)
    keypoints[:, :, 6], keypoints[:, :, 7] = (40, 30), (46, 40)
    shape = (people, 2)
    return Bank(image=np.zeros((*shape, *SIZE, 3), np.uint8), part=np.zeros((*shape, *SIZE), np.uint8),
                uv=np.zeros((*shape, *SIZE, 2), np.uint8), keypoints=keypoints, detected=np.ones((*shape, 18), bool),
                eyes=eyes, eyes_visible=np.ones((*shape, 2), bool), zoom=np.full(shape, 0.5, np.float32), first=0)


def test_face_and_hand_are_found_where_they_are():
    bank = bank_of(1)
    (face, face_half), (hand, hand_half) = closeups(bank, 0, TARGET_VIEW)
    assert face.tolist() == [36.0, 9.0 + 3.0 * 0.5] and face_half == FACE * 0.5
    assert hand.tolist() == [20.0 + 6.0 * 0.5, 40.0] and hand_half == HAND * 0.5
    assert closeups(bank, 0, SOURCE_VIEW)[0][0].tolist() == [12.0, 10.5]


def test_the_hand_is_the_one_that_lies_most_within_the_picture():
    bank = bank_of(1)
    bank.keypoints[0, TARGET_VIEW, 4] = (2, 40)          # two pixels from the edge, as the left one
    bank.keypoints[0, TARGET_VIEW, 7] = (40, 42)         # eight, below its elbow
    hand, _ = closeups(bank, 0, TARGET_VIEW)[1]
    assert hand.tolist() == [40.0, 42.0 + 3.0]
    bank.keypoints[0, TARGET_VIEW, 6] = (40, 42)         # a forearm that points at the camera
    assert closeups(bank, 0, TARGET_VIEW)[1][0].tolist() == [40.0, 42.0]


def test_all_sizes_follow_the_zoom():
    bank = bank_of(1)
    bank.zoom[0, TARGET_VIEW] = 2.0
    assert [half for _, half in closeups(bank, 0, TARGET_VIEW)] == [2 * FACE, 2 * HAND]


@pytest.mark.parametrize("people", [1, 2, 3])
def test_the_sheet_holds_every_picture_in_its_place(people):
    """Made of noise, so that no other place holds the same; 8 bits come out as they went in."""
    rng = np.random.default_rng(0)
    stored = {name: rng.integers(0, 256, (people, *SIZE, 3), dtype=np.uint8) for name in ("source", "QEN", "target")}
    columns = {name: torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255 for name, picture in stored.items()}
    page = sheet(columns, bank_of(people))
    block = 3 * CELL[1] + 3 * GAP
    assert page.dtype == np.uint8 and page.shape == (LABEL + -(-people // PER_LINE) * CELL[0], PER_LINE * block, 3)
    for who in range(people):
        line, slot = divmod(who, PER_LINE)
        for index, pictures in enumerate(stored.values()):
            y, x = LABEL + line * CELL[0], slot * block + index * CELL[1]
            assert np.array_equal(page[y:y + SIZE[0], x:x + SIZE[1]], pictures[who])
    labels = page[:LABEL]
    assert (labels != 255).any() and (people > 1 or (labels[:, block:] == 255).all())


def closeup(page: np.ndarray, column: int, place: int) -> np.ndarray:
    """The enlarged face (0) or hand (1) of the first person, (SIDE, SIDE, 3)."""
    y, x = LABEL + SIZE[0] + GAP, column * CELL[1] + place * (SIDE + GAP)
    return page[y:y + SIDE, x:x + SIDE]


def test_sources_are_enlarged_at_their_own_face_and_the_others_at_the_targets():
    """Left halves are red and right halves green; below all is blue, where the hand is."""
    picture = torch.zeros(1, 3, *SIZE)
    picture[:, 0, :28, :24] = picture[:, 1, :28, 24:] = picture[:, 2, 28:] = 1
    page = sheet({"source": picture, "MCLD": picture, "target": picture}, bank_of(1))
    middle = np.s_[8:14, 8:14]
    for column, face in enumerate((RED, GREEN, GREEN)):
        assert (closeup(page, column, 0)[middle] == face).all()
        assert (closeup(page, column, 1)[middle] == BLUE).all()


def test_what_lies_outside_the_picture_is_white_in_a_closeup():
    bank = bank_of(1)
    bank.eyes[0, TARGET_VIEW] = (46, -1), (50, -1)    # the close-up's middle is near the upper right corner
    page = sheet({"MCLD": torch.zeros(1, 3, *SIZE)}, bank)
    crop = closeup(page, 0, 0)
    assert (crop[:8, -8:] == 255).all() and (crop[-4:, :4] == 0).all()
