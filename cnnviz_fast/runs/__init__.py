"""Runs over any number of images: resumable, shared among processes or Ray actors, with statistics over all of them."""
