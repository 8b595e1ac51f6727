"""What the axes of an output hold, followed from the input through every operation of a pass."""
