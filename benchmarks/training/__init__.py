"""How the trained networks of the package are made: from photos to filters, to a network, to files."""
