"""`python -m cnnviz_fast`, and so `torchrun -m cnnviz_fast`: the command line."""

import sys

from .cli.main import main

sys.exit(main())
