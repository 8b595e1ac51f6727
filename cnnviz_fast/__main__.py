"""`python -m cnnviz_fast`, and so `torchrun -m cnnviz_fast`: the command line."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
