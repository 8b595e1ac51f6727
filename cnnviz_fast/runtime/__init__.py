"""What all packages lean on: devices, worker threads, files that appear whole, progress, stage times."""
