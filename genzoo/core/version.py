"""The version of genzoo, recorded in reports and sample folders."""

VERSION = "0.1.0"
