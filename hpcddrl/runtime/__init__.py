"""From a configuration to this rank's role, and from start to end of a job."""
