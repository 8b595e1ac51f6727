"""What channels hold: values, statistics and ranges, the choice of channels to draw, statistics over data sets."""
