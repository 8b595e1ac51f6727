"""The local server: what is shown over HTTP, nothing else, and nothing before it is looked at."""
