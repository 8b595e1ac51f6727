"""The parameters of a model: statistics, histograms, and sheets of its kernels."""
