"""The contrastive loss of FPDM's first stage against plain formulas, on one process and on several."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training.tasks.fpdm_fusion import fusion_loss, gather_rows, hits, places


def plain_loss(target, fusion, source, temperature=0.07, weight=1e-4):
    rows, columns = np.concatenate([target, source]), np.concatenate([fusion, source])
    rows, columns = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    logits = rows @ columns.T / temperature
    entropy = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    return entropy.mean() + weight * np.abs(source - fusion).sum() / (2 * source.size)


def test_the_loss_equals_a_plain_formula():
    random = np.random.default_rng(0)
    target, fusion, source = (random.standard_normal((7, 12)) for _ in range(3))
    result = fusion_loss(*(torch.from_numpy(x) for x in (target, fusion, source)))
    assert abs(result.loss.item() - plain_loss(target, fusion, source)) < 1e-12
    perfect = fusion_loss(torch.from_numpy(target), torch.from_numpy(target), torch.from_numpy(source))
    assert perfect.top1 == perfect.top5 == perfect.mean_rank == 1
    with pytest.raises(ValueError, match="one shape"):
        fusion_loss(torch.zeros(3, 4), torch.zeros(2, 4), torch.zeros(3, 4))


def test_the_loss_keeps_its_precision_under_autocast():
    random = np.random.default_rng(1)
    exact = [torch.from_numpy(random.standard_normal((16, 32))).float() for _ in range(3)]
    for given in (exact, [x.bfloat16() for x in exact]):
        expected = plain_loss(*(x.double().numpy() for x in given))
        with torch.autocast("cpu", torch.bfloat16):
            result = fusion_loss(*given)
        assert result.loss.dtype == torch.float32 and abs(result.loss.item() - expected) < 1e-5


def test_ties_share_their_places_and_what_is_not_a_number_has_the_last():
    """Against the mean over random orders of equally near candidates, and on embeddings that have collapsed into one."""
    same = torch.ones(8, 4)
    result = fusion_loss(same, same, same, source_enhanced=False)
    assert [result.top1.item(), result.top5.item(), result.mean_rank.item()] == pytest.approx([1 / 8, 5 / 8, 4.5])
    result = fusion_loss(same, same, same)   # the other half of the rows are sources, which find themselves
    assert [result.top1.item(), result.mean_rank.item()] == pytest.approx([(1 + 1 / 16) / 2, (1 + 8.5) / 2])
    similarity = torch.tensor(np.random.default_rng(2).integers(0, 3, (6, 9)).astype(np.float32))
    labels, order, ranks = torch.arange(6), torch.Generator().manual_seed(0), []
    for _ in range(4000):
        apart = similarity + 0.5 * torch.rand(6, 9, generator=order)
        ranks.append(1 + (apart > apart.gather(1, labels[:, None])).sum(1))
    ranks = torch.stack(ranks).float()
    nearer, ties = places(similarity, labels)
    assert (1 + nearer + ties / 2 - ranks.mean(0)).abs().max() < 0.15
    for first in (1, 5):
        assert abs(hits(nearer, ties, first) - (ranks <= first).float().mean()) < 0.02
    broken = torch.eye(6)
    broken[2] = math.nan
    result = fusion_loss(broken, torch.eye(6), torch.eye(6), source_enhanced=False)
    assert result.mean_rank == (5 * 1 + 6) / 6 and result.top1 == result.top5 == pytest.approx(5 / 6)


def test_gathered_losses_of_two_processes_average_to_that_of_the_joint_batch():
    target, fusion, source = (torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    whole = fusion_loss(target, fusion, source)
    expected = torch.autograd.grad(whole.loss, (target, fusion, source), retain_graph=True)
    parts = []
    for first in (0, 3):
        own = slice(first, first + 3)
        all_rows = iter([(fusion, first), (source, first)])
        parts.append(fusion_loss(target[own], fusion[own], source[own], gather=lambda _, rows=all_rows: next(rows)))
    assert torch.allclose((parts[0].loss + parts[1].loss) / 2, whole.loss)
    made = torch.autograd.grad((parts[0].loss + parts[1].loss) / 2, (target, fusion, source))
    assert all(torch.allclose(a, b) for a, b in zip(made, expected, strict=True))
    assert torch.allclose((parts[0].mean_rank + parts[1].mean_rank) / 2, whole.mean_rank)


def test_gathering_works_alone_and_in_a_group_of_one(tmp_path):
    rows = torch.randn(3, 4, requires_grad=True)
    assert gather_rows(rows)[0] is rows
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        every, first = gather_rows(rows)
        every.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert first == 0 and torch.equal(every, rows) and torch.equal(rows.grad, torch.ones_like(rows))
