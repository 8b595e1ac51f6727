"""Options: the only home of defaults. Frozen records that check themselves; the command line is made from them."""
