"""The measures of FPDM's benchmarks, on embeddings whose answer is known, and the walk that they show."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.poses.formats import from_pose_keypoint
from tests.helpers.fpdm_tiny import fpdm_config
from training.world.motion import walk_keypoints, walk_text
from training.world.wardrobe import sample_identity

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
retrieval, sequence = importlib.import_module("retrieval"), importlib.import_module("sequence")


def test_ranks_count_what_is_nearer_and_ties_against():
    candidates = F.normalize(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 1.0]]), dim=1)
    query = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), dim=1)
    assert retrieval.ranks(query, candidates).tolist() == [1, 2, 2, 4]
    row = retrieval.measures(retrieval.ranks(query, candidates), 2, query, candidates)
    assert row == {"top1": 0.25, "top5": 1.0, "mean rank": 2.25, "person": 0.75}   # the fourth finds the first person


def test_retrieval_of_an_oracle_is_perfect_and_of_one_photo_knows_no_pose():
    """Embeddings of person and pose: the fusion is exact, the source has the person and another pose."""
    people, poses = 6, 4
    person = torch.eye(people).repeat_interleave(poses, 0)
    pose = torch.eye(poses).repeat(people, 1)
    target = F.normalize(torch.cat([person, pose], 1), dim=1)
    source = F.normalize(torch.cat([person, torch.zeros(people * poses, poses)], 1), dim=1)
    found = retrieval.measures(retrieval.ranks(target, target), poses, target, target)
    alone = retrieval.measures(retrieval.ranks(source, target), poses, source, target)
    assert found["top1"] == found["person"] == alone["person"] == 1.0 and alone["top1"] == 0.0
    assert alone["mean rank"] == poses


def test_the_retrieval_benchmark_runs_on_a_checkpoint_of_stage_1(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "one.safetensors", FusionModel(fpdm_config().fusion), {}, base="demo", step=0, data="none",
                    licence="none")
    monkeypatch.setattr(sys, "argv", ["retrieval.py", "--checkpoint", str(tmp_path / "one.safetensors"), "--people", "3",
                                      "--poses", "2", "--cache", str(tmp_path), "--json", str(tmp_path / "rows.json"),
                                      "--canvas", "128x128"])
    assert retrieval.main() == 1   # random weights
    said = capsys.readouterr().out
    assert "6 candidates (3 people never trained on, 2 poses each)" in said and "MISSED" in said
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["name"] for row in rows} >= {"retrieval, fusion, top1", "retrieval, top-1 of fusion over source"}
    assert all(isinstance(row["value"], float) and row["settings"] and row["versions"] for row in rows)
    oracle = {"fusion": torch.eye(6), "target": torch.eye(6), "source": torch.ones(6, 6)}
    monkeypatch.setattr(retrieval, "queries", lambda *_: oracle)
    assert retrieval.main() == 0 and "MISSED" not in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "memory", "status"), [(1.0, 0, 0), (1.04, 1, 0), (1.1, 0, 1), (1.0, 3, 1)])
def test_the_sequence_benchmark_fails_when_a_bar_is_missed(monkeypatch, capsys, seconds, memory, status):
    """seconds: of the sequence over those of single pictures; memory: MiB above 1000 for every 20 frames."""
    monkeypatch.setattr(sys, "argv", ["sequence.py"])
    monkeypatch.setattr(sequence, "opened", lambda _: None)
    monkeypatch.setattr(sequence, "measure", lambda *_: [(seconds, 1.0)])
    monkeypatch.setattr(sequence, "peak", lambda count, *_: 1000 + memory * count / 20)
    assert sequence.main() == status and ("MISSED" in capsys.readouterr().out) == bool(status)


def test_a_walk_comes_back_to_its_start_and_never_jumps():
    identity = sample_identity(5)
    poses = walk_keypoints(identity, 12, (128, 96))
    xy = np.stack([pose.xy for pose in poses] + [poses[0].xy])
    assert all(pose.present[:14].sum() > 10 for pose in poses)
    seen = np.stack([pose.present for pose in poses] + [poses[0].present])
    steps = np.linalg.norm(np.diff(xy, axis=0), axis=-1) * (seen[1:] & seen[:-1])
    assert steps.max() < 16 and steps[-1].max() <= steps.max() and steps.max(0)[[4, 7, 10, 13]].min() > 1
    again = from_pose_keypoint(json.loads(walk_text(identity, 12, (128, 96))))
    for one, other in zip(again, poses, strict=True):
        assert np.array_equal(one.present, other.present) and one.canvas == (128, 96)
        assert one.xy[one.present] == pytest.approx(other.xy[other.present], abs=0.051)
