"""Feature networks: the spaces in which distances between sets of images are measured."""
