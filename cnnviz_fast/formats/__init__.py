"""Bytes and files: PNG and other picture files, safetensors, atlases, and names that every file system takes."""
