"""Face Embedding, of pictures and of files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.host.mcld.helpers import SIZE


class App:
    """Stands for insightface: a dark picture shows nobody, any other two faces, the smaller one first."""

    def get(self, image):
        if image.mean() < 10:
            return []
        box = np.array([10.0, 20.0, 30.0, 45.0])
        return [SimpleNamespace(bbox=box / 2, embedding=np.full(512, 1.0, np.float32)),
                SimpleNamespace(bbox=box, embedding=np.full(512, 2.0, np.float32))]


def test_insightface_embeds_the_largest_face_and_warns_without_one(nodes, people, monkeypatch, caplog):
    monkeypatch.setattr(nodes.face, "_app", lambda root, name: App())
    images = torch.cat([people[0].image, torch.zeros_like(people[0].image)])
    for _ in range(2):   # a server must not fall silent after the first time
        caplog.clear()
        face, crops, masks = nodes.face.FaceEmbedding.execute(images, "antelopev2", 0).result
        assert "no face found in picture 2 of 2" in caplog.text
    assert face.vectors.shape == (2, 512) and (face.vectors[0] == 2).all() and not face.vectors[1].any()
    assert crops.shape == (2, 224, 224, 3) and crops[0].any() and not crops[1].any()
    assert masks.shape == (2, *SIZE) and masks[0, 30, 20] == 1 and not masks[1].any()
    second = nodes.face.FaceEmbedding.execute(people[0].image, "antelopev2", 1).result[0]
    assert (second.vectors == 1).all()
    with pytest.raises(ValueError, match="face 2 was asked for, but the photo shows 2"):
        nodes.face.FaceEmbedding.execute(people[0].image, "antelopev2", 2)


def test_without_insightface_the_node_says_what_to_install(nodes, people):
    with pytest.raises(ValueError, match="pip install insightface|no face model in .*insightface"):
        nodes.face.FaceEmbedding.execute(people[0].image, "buffalo_l", 0)


def test_the_checkpoints_own_encoder_reads_the_head(nodes, pack, files, method, people, caplog):
    face, crops, masks = nodes.face.FaceEmbedding.execute(people[0].image, nodes.face.OWN, 0, method,
                                                          people[0].densepose).result
    head = people[0].densepose[0].part_mask("head")
    assert face.vectors.shape == (1, 64) and face.vectors.any() and crops.shape == (1, 224, 224, 3)
    assert masks[0].numpy()[head].all() and masks[0].mean() < 0.3
    headless = pack.densepose.IUV(np.zeros(SIZE, np.uint8), *(np.zeros(SIZE, np.float32) for _ in "uv"))
    for _ in range(2):
        caplog.clear()
        none = nodes.face.FaceEmbedding.execute(people[0].image, nodes.face.OWN, 0, method, (headless,)).result[0]
        assert "no head in picture [1] of 1" in caplog.text
    assert not none.vectors.any()
    with pytest.raises(ValueError, match="came with no checkpoint and no densepose.*Connect both"):
        nodes.face.FaceEmbedding.execute(people[0].image, nodes.face.OWN, 0)


def test_embeddings_load_from_npy_files_of_the_input_folder(nodes, host):
    vector = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    np.save(host.base / "input" / "face.npy", vector)
    np.save(host.base / "input" / "short.npy", vector[:100])
    def load(file):
        return nodes.face.FaceEmbedding.execute(file=file).result
    face, crop, mask = load("face.npy")
    assert np.array_equal(face.vectors[0].numpy(), vector)
    assert "there is no picture" in crop.message and mask.message == crop.message
    with pytest.raises(ValueError, match="short.npy came as float32 \\(100,\\); expected 512 numbers"):
        load("short.npy")
    with pytest.raises(ValueError, match="no file '../secret.npy'"):
        load("../secret.npy")
    with pytest.raises(ValueError, match="Face Embedding has no image; expected .* a file in its place"):
        nodes.face.FaceEmbedding.execute()
