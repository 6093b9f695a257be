"""A run: from pictures to report (``train``), in the user's hands (``trained``), measured (``evaluate``), distilled."""
