"""Who is where, and how records travel: placement, channels, reductions, exchange. Alone imports mpi4py and horovod."""
