"""From hooks to maps: layers are found and captured in one forward pass, and what they put out is read as maps."""
