"""Floor 6: one file per mode of the command line; each looks at a family through the contract."""
