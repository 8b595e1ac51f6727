"""The viewer: every channel in the browser, from one self-contained file, a folder, or a local server."""
