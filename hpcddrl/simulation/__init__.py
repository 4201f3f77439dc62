"""A job as a discrete-event model: the same roles and messages, with measured times instead of work."""
