"""What is measured: a file for each part of the package, with peers on the same input."""
