"""What channels hold: their values, statistics and ranges, which of them are drawn, and statistics over data sets."""
