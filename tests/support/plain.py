"""The functions that draw, with `plain`: for tests of pixels and files, which text, gaps and marks would only hide."""

from __future__ import annotations

from functools import partial

import cnnviz_fast as cf

render = partial(cf.render, plain=True)
render_batch = partial(cf.render_batch, plain=True)
save_sheet = partial(cf.save_sheet, plain=True)
save_tiles = partial(cf.save_tiles, plain=True)
compare = partial(cf.compare, plain=True)
visualize = partial(cf.visualize, plain=True)
