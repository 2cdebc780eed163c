"""Stage 1's negatives gathered across two real processes: the averaged gradients are those of the joint batch."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.multiprocessing
from torch import Tensor

from training.tasks.fpdm_fusion import fusion_loss, gather_rows

PROCESSES, ROWS, WIDTH = 2, 3, 8


def embeddings() -> list[Tensor]:
    """target, fusion, source of the joint batch."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(PROCESSES * ROWS, WIDTH, dtype=torch.float64, generator=generator) for _ in range(3)]


def process(rank: int, folder: str) -> None:
    """One process: the gathered loss of its rows, and the gradients for them averaged over processes, into a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    parts = [x[own].clone().requires_grad_() for x in embeddings()]
    result = fusion_loss(*parts, gather=gather_rows)
    (result.loss / PROCESSES).backward()
    torch.save([result.loss.detach(), *(x.grad for x in parts)], f"{folder}/{rank}.pt")
    while not all(Path(folder, f"{other}.pt").exists() for other in range(PROCESSES)):   # the other may still listen
        time.sleep(0.05)
    os._exit(0)   # gloo's threads abort now and then when a group is torn down, which is not what is tested here


def test_two_processes_with_gathered_negatives_learn_what_one_does_on_the_joint_batch(tmp_path):
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=PROCESSES)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    whole = [x.requires_grad_() for x in embeddings()]
    loss = fusion_loss(*whole).loss
    loss.backward()
    assert torch.allclose(sum(one[0] for one in found) / PROCESSES, loss.detach(), atol=1e-12)
    for index, joint in enumerate(whole, start=1):
        assert torch.allclose(torch.cat([one[index] for one in found]), joint.grad, atol=1e-12), index
    alone = fusion_loss(*(x[:ROWS] for x in embeddings())).loss
    assert not torch.allclose(found[0][0], alone), "without gathering a process sees its own negatives alone"
