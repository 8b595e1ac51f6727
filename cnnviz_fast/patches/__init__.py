"""What the channels of a network look for: the strongest images of each over a data set, and the patches they saw."""
