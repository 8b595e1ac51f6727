"""Stage 7 of 7: arrays to bytes (`png`, `formats`), and bytes to files that are whole (`files`)."""
