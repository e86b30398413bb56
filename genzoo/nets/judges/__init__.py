"""Published networks in whose features images are compared. They are only ever applied."""
