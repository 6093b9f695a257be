"""Latents for diffusion models with a bit budget."""
