"""From files to tensors: images are found, listed, decoded, and read ahead of the model."""
