"""Other people's formats, in and out: their models and latents read strictly, without running code; runs handed over."""
