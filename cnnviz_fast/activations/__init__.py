"""From hooks to maps: find layers, capture their activations in one forward pass, and read these as maps."""
