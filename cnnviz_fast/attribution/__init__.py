"""Which parts of an image a model's output depends on: heat maps of layers, gradients of pixels."""
