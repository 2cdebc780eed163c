"""What a method may tell a Stable Diffusion UNet, and the diffusers binding that tells it; nothing of any method."""
