"""Kinds in captions as choices: against what the people are, against float64 by hand, and within FPDM's caption loss."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests import fpdm_tiny
from training.caption_kinds import SHARPNESS, kinds_error
from training.data.bank import WATCHED
from training.data.captions import KINDS, caption
from training.data.fpdm_pairs import MannequinPictures
from training.data.mannequin_cloth import sample_identity
from training.fpdm import FPDMTask

CPU = torch.device("cpu")


def people(count=60):
    return [sample_identity(seed) for seed in range(count)]


def captions(who):
    return torch.from_numpy(np.stack([caption(one) for one in who]))


def of(person) -> dict[str, int | None]:
    """What a person is, by the person and not by the caption."""
    return {"hair": person.hair_style, "top": person.top_pattern, "bottom": person.bottom_pattern, "cut": person.bottom_kind,
            "letter": person.letter if person.letter >= 0 else None}


def test_every_kind_is_where_captions_say_it():
    who = people()
    told = captions(who)
    for name, kind in KINDS.items():
        truth = [of(person)[name] for person in who]
        rows = [row for row, value in enumerate(truth) if value is not None]
        assert len({truth[row] for row in rows}) > 2, f"{name}: too few kinds to tell"
        numbers = told[rows, kind.token, kind.columns]
        assert numbers.argmax(1).tolist() == [truth[row] for row in rows]
        assert torch.all((numbers == kind.size) | (numbers == 0)) and torch.all((numbers == kind.size).sum(1) == 1)
        if kind.only is None:
            assert len(rows) == len(who)
        else:
            assert (told[:, kind.token, kind.only] == 1).nonzero().flatten().tolist() == rows and len(rows) < len(who)


def test_the_error_is_the_cross_entropy_of_what_people_are():
    who = people()
    told = captions(who)
    said = told + 0.4 * torch.randn(told.shape, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for name, kind in KINDS.items():
        each = []
        for row, person in enumerate(who):
            if (truth := of(person)[name]) is None:
                continue
            logits = [SHARPNESS * float(number) / kind.size for number in said[row, kind.token, kind.columns]]
            each.append(math.log(sum(map(math.exp, logits))) - logits[truth])
        total += sum(each) / len(each)
    assert kinds_error(said, told).item() == pytest.approx(total, rel=1e-5)
    assert kinds_error(told, told) < 0.2 < 1.0 < kinds_error(torch.zeros_like(told), told)
    bare = [row for row, person in enumerate(who) if person.letter < 0]
    worse = told[bare].clone()
    worse[:, 10] += 1.0 + torch.rand(64)   # of what nobody has nothing is asked
    assert torch.equal(kinds_error(worse, told[bare]), kinds_error(told[bare], told[bare]))


@pytest.mark.parametrize(("encoder_only", "weight"), [(True, 0.5), (False, 2.0 * 0.5)])
def test_the_caption_loss_has_its_weight_in_both_halves(encoder_only, weight, folder, files, fusion):
    def task(kinds):
        own = {"kinds": kinds, "flip": 0.0, "freeze_source": False, "fusion": fusion}
        changes = {"encoder_only": encoder_only, "caption_loss": 2.0}
        return FPDMTask(fpdm_tiny.train_config(folder, files, "fpdm", fpdm=own, method=changes), CPU)
    without, with_kinds = task(0.0), task(0.5)
    with_kinds.model.load_state_dict(without.model.state_dict())
    batch = without.batch(np.random.default_rng(0), 6)
    results = []
    for one in (without, with_kinds):
        torch.manual_seed(1)   # noise and drops
        results.append(one.model.eval()(batch))
    (plain, before), (more, logs) = results
    method = without.model.method
    named = kinds_error(method.source_mlp(method.source_tower(batch["source"])), batch["caption"])
    assert "kinds" not in before and named > 1 and torch.allclose(logs["kinds"], named)
    assert torch.allclose(more - plain, weight * named, rtol=1e-4)


def test_batches_of_an_encoder_bring_what_it_reads_and_no_more(folder, files, fusion):
    own = {"flip": 0.5, "identity": 0.5, "low_share": 0.5, "low_size": [32, 32], "fusion": fusion}
    config = fpdm_tiny.train_config(folder, files, "fpdm", fpdm=own, method={"encoder_only": True, "caption_loss": 1.0})
    batches = FPDMTask(config, CPU).batch
    apart = batches(np.random.default_rng(3), 8)
    both = dataclasses.replace(batches, source_only=False)(np.random.default_rng(3), 8)
    assert set(apart) == {"source", "caption"} < set(both)
    assert all(torch.equal(apart[name], both[name]) for name in apart)


def test_people_with_letters_are_drawn_more_often_where_asked(folder, files):
    def share(lettered, unseen=False):
        config = fpdm_tiny.train_config(folder, files, "fpdm", fpdm={"lettered": lettered}, data={"identities": 24})
        pictures, first = MannequinPictures(config), config.data.seed
        if unseen:
            pictures, first = pictures.unseen(), WATCHED
        drawn = pictures.draw(np.random.default_rng(0), 400)
        return np.mean([sample_identity(first + pair.where[0]).letter >= 0 for pair in drawn])
    assert share(1.0) == share(1.0, unseen=True) == 1.0
    chance = share(0.0)
    assert 0 < chance < 0.5 and share(0.6) == pytest.approx(0.6 + 0.4 * chance, abs=0.06)
