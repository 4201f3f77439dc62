"""Tables to pictures, for reports, notebooks and benchmarks alike. Nothing here opens a file."""
