"""Bytes and files: PNG and other pictures, safetensors, atlases, and names that every file system takes."""
