"""A job as a discrete-event model: the same roles and messages, with measured times instead of work.

What is not in it: the network between hosts beyond each rank's own link, other jobs, memory's bandwidth, and the start
and end of a job.
"""
