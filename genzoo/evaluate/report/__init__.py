"""The report on a run: one self-contained page, made of sections that a gallery can use again."""
