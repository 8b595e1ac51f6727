"""Receptive fields: which pixels of the input a unit depends on, followed through every operation of a pass."""
