"""From a spec to a module in eval mode with its preprocessing: torchvision, timm, Hugging Face, files, checkpoints."""
