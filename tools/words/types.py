"""What each type of socket holds, with shape, range and unit, for the help pages."""

from __future__ import annotations

TYPES = {
    "IMAGE": "pictures: (batch, height, width, 3), red, green and blue from 0 to 1",
    "MASK": "(batch, height, width) from 0 (black) to 1 (white)",
    "LATENT": "latents (batch, 4, height / 8, width / 8) of pictures of height x width pixels",
    "MODEL": "the UNet and what is patched onto it",
    "VAE": "the autoencoder between pictures and latents",
    "CONDITIONING": "what KSampler takes as positive or negative",
    "GUIDER": "what SamplerCustomAdvanced takes in place of MODEL, positive and negative",
    "NOISE": "what SamplerCustomAdvanced starts from: numbers of mean 0 and variance 1 in the shape of the latents",
    "CLIP_VISION": "a CLIP image encoder",
    "POSE_KEYPOINT": "a list of frames; each has its people, with 18 OpenPose joints (x, y in pixels of the canvas, "
                     "confidence 0 to 1), and canvas_width and canvas_height in pixels",
    "DENSEPOSE": "one per picture: for each of height x width pixels the body part, 0 (none) to 24, and U and V on it, 0 to "
                 "1",
    "FACE_EMBEDS": "(batch, 512) numbers of insightface, or as many as the checkpoint's own encoder gives; zeros where "
                   "there is no face",
    "PGPIS_METHOD": "a loaded checkpoint: its encoders, and the UNet weights that belong to it",
    "PGPIS_COND": "encoded pairs of a person and a pose, one per picture that will be made",
    "PGPIS_FRAME": "one per picture: where its frame lies in the photo, in pixels",
}
