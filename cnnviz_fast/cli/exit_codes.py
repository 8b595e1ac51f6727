"""The commands, one module each: its arguments (`add`), and what it does with them. None of them does arithmetic.

Results go to stdout, one path a line or JSON; progress and errors go to stderr.
"""

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3  # PARTLY: some pictures failed and the rest are done
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C
