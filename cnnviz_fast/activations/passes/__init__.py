"""One pass of a foreign model: how it is called, what is looked at, and that it comes back as it was."""
