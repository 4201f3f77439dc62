"""The mathematics: functions on arrays, without state, MPI or files. ``_t`` and ``_tm1`` name the side of a step."""
