"""QEN's query fusion written out, for what is compared with it."""

import torch


def plain_attend(attention, x, context):
    """Multi-head attention written out, one head after another."""
    q, k, v = (linear(t) for linear, t in ((attention.to_q, x), (attention.to_k, context), (attention.to_v, context)))
    size = q.shape[-1] // attention.heads
    parts = []
    for head in range(attention.heads):
        a, b, c = (t[..., head * size:(head + 1) * size] for t in (q, k, v))
        parts.append(torch.softmax(a @ b.mT / size ** 0.5, -1) @ c)
    return attention.to_out[0](torch.cat(parts, -1))


def plain_fusion(fusion, features):
    """QFFT as the text says: Q_l reads F1, F2, F3, F4; then [Q_l, Q_g] attend to themselves."""
    sources = []
    for number, feature in enumerate(features):
        position = torch.zeros(feature.shape[1], fusion.local_queries.shape[1], dtype=feature.dtype)
        height, width = fusion.grids[number]
        quarter = position.shape[1] // 4
        for cell in range(height * width):
            for axis, place in enumerate(divmod(cell, width)):
                for n in range(quarter):
                    angle = torch.tensor(float(place), dtype=feature.dtype) / 10000.0 ** (n / quarter)
                    position[cell, axis * 2 * quarter + n] = angle.sin()
                    position[cell, axis * 2 * quarter + quarter + n] = angle.cos()
        sources.append(fusion.source_in[number](fusion.source_norms[number](feature)) + fusion.scale_embedding[number]
                       + position)
    local = fusion.local_queries.expand(features[0].shape[0], -1, -1)
    shared = local[:, :0] if fusion.global_queries is None else fusion.global_queries.expand(features[0].shape[0], -1, -1)
    for block in fusion.blocks:
        for norm, attention, source in zip(block.cross_norms, block.cross, sources, strict=True):
            local = local + plain_attend(attention, norm(local), source)
        both = torch.cat([local, shared], 1)
        both = both + plain_attend(block.self_attention, block.self_norm(both), block.self_norm(both))
        both = both + block.ff(block.ff_norm(both))
        local, shared = both[:, :fusion.local], both[:, fusion.local:]
    return torch.cat([local, shared], 1)
