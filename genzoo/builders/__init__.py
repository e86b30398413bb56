"""Floor 6: builders that turn the sections of a config into objects; `build.py` lists them all."""
