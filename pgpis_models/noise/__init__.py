"""Diffusion arithmetic: schedules, timesteps, samplers."""
