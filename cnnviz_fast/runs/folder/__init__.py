"""The folder of a run: its lock, its index of what is done, the fingerprint of its settings, its tar files."""
