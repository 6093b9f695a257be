"""What a run makes its pictures with: the networks that were loaded and the settings that they work by, not others."""

from unilat.results import Making
from unilat.run.trained import Run


def making(run: Run) -> Making:
    """Of the run's networks: a distilled one has its own calls, start and guidance, whatever the configuration says."""
    how, few, base = run.config.evaluation, run.few_decoder, run.base
    of_base = {}
    if base is not None:
        kind = "fast" if run.few_base else "prior" if base.denoise is run.autoencoder.prior else "full"
        guidance = how.guidance if run.few_base is None else run.few_base.guidance
        of_base = {"base": kind, "base_steps": run.base_steps, "guidance": guidance if base.classes else 1.0}
    return Making(
        decoder="fast" if few else "full",
        decoder_steps=run.decoder_steps,
        decoder_range=few.span if few else how.decoder_range,
        decoder_temperature=few.temperature if few else how.decoder_temperature,
        **of_base,
    )


def mismatches(run: Run) -> list[str]:
    """Where a distilled network was made by other settings than the run's are now: a line each, with the way out."""
    how, few, base = run.config.evaluation, run.few_decoder, run.few_base
    found = []
    if base is not None and run.base is not None and run.base.classes:
        found.append(("base model", "guidance", base.guidance, how.guidance))
    if few is not None:
        found.append(("decoder", "decoder_temperature", few.temperature, how.decoder_temperature))
        found.append(("decoder", "decoder_range, first call,", few.span[0], how.decoder_range[0]))
    return [
        f"the fast {part} was distilled with {name} {'that is not known' if own is None else f'{own:g}'} and keeps it; "
        f"the run's is {now:g} now: distil it again for that"
        for part, name, own, now in found
        if own != now
    ]
