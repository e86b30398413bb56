"""Floor 6: how the sections of a config become objects; `build.py` is the table of them."""
