"""Ways in from other people's formats: their autoencoders and their latents, read strictly and without running code."""
