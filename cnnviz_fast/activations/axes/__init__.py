"""Which axis of an output is which, and how it becomes maps."""
