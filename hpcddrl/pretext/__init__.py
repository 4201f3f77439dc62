"""Learning to see without rewards: what a shared torso's features can be made to tell of the images they came from."""
