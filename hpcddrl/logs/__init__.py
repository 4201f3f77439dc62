"""What a run leaves behind: time, rows, checkpoints and the directory they stand in. Alone imports h5py."""
