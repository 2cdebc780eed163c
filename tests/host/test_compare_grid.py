"""Compare Grid: what stands above the pictures and in the table."""

import torch


def test_lpips_stands_beside_where_its_network_is_there(host, monkeypatch):
    image = host.pack("nodes.image")
    pictures = [torch.rand(2, 40, 40, 3, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    given = {"image_1": pictures[0], "image_2": pictures[1], "target": pictures[2], "labels": "a\nb"}
    monkeypatch.setattr(image, "lpips_where_there", lambda _made, _target: None)
    plain, table = image.CompareGrid.execute(**given).result
    assert table.splitlines()[0] == "column\tSSIM\tPSNR" and len(table.splitlines()) == 3
    monkeypatch.setattr(image, "lpips_where_there", lambda made, target: (made - target).abs().mean((1, 2, 3)))
    more, table = image.CompareGrid.execute(**given).result
    assert table.splitlines()[0] == "column\tSSIM\tPSNR\tLPIPS"
    for line, picture in zip(table.splitlines()[1:], pictures, strict=False):
        assert abs(float(line.split("\t")[3]) - float((picture - pictures[2]).abs().mean())) < 1e-4
    assert more.shape == plain.shape


def test_without_network_or_pixels_there_is_no_lpips(host, monkeypatch, tmp_path):
    metrics = host.pack("pgpis_models.metrics")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metrics._network.cache_clear()
    assert metrics.lpips_where_there(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)) is None
    monkeypatch.setattr(metrics, "_network", lambda: lambda a, b, normalize: (a - b).abs().mean((1, 2, 3), keepdim=True))
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    assert torch.allclose(metrics.lpips_where_there(a, b), (a - b).abs().mean((1, 2, 3)))
    assert metrics.lpips_where_there(a[..., :20], b[..., :20]) is None
