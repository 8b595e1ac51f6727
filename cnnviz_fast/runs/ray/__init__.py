"""Runs on a Ray cluster: actors hold the model and write the files, this process keeps the account."""
