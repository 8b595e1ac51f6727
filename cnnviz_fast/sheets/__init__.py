"""The main path: maps become a plan, the plan becomes pixels, and pixels become a sheet or a file."""
