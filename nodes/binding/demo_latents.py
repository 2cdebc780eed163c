"""The demo's latents as the host shows them while it samples."""

from __future__ import annotations

from comfy.latent_formats import SD15

from ...pgpis_models.unet.autoencoder import LATENT_SCALE


class DemoLatents(SD15):
    """Scaled as SD1.5's, with colours of their own.

    latent_rgb_factors (4, 3), latent_rgb_factors_bias (3,): latents to RGB in -1..1, least squares of the decoded picture's
    means over 8x8 pixels on ten drawn people. An autoencoder that training makes anew keeps near them, since it starts with
    the mean colour in its first three channels.
    """

    def __init__(self) -> None:
        super().__init__(LATENT_SCALE)
        self.latent_rgb_factors = [[0.2309, 0.0565, -0.0065], [0.0771, 0.2282, 0.1205], [0.0885, 0.1123, 0.2964],
                                   [0.0012, -0.0285, 0.0107]]
        self.latent_rgb_factors_bias = [0.2687, 0.2014, 0.1521]
        self.taesd_decoder_name = None   # that of SD1.5 would show other colours
