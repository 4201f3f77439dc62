"""Its presence puts this folder on the path, so that tests anywhere below can import ``launch``."""
