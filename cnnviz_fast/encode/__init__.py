"""Stage 7 of 7: arrays to bytes (`png`, `formats`, `device_jpeg`), and bytes to files that are whole (`files`)."""
