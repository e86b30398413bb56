"""The version of genzoo, which reports and folders of samples name."""

VERSION = "0.1.0"
