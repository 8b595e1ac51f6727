"""What `cnnviz doctor`, `bench` and `demo` compute: what is installed, how fast it is, and a test chart."""
