"""How it is measured: contenders in turns, records, bars, comparisons with recorded runs."""
