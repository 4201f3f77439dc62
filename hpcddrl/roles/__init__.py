"""What ranks do: learner, actor, server, and the parts that the learner's loop is made of."""
