"""Floor 7: one file per mode of the command line; each uses a family through its contract."""
