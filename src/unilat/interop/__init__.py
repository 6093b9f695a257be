"""Other people's formats, in and out: models and latents read strictly and without running code; runs handed over."""
