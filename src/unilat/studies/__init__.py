"""Studies drive or read whole runs: comparisons, codelengths. They stand below the command line alone."""
