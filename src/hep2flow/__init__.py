"""hep2flow: HEp-2 cell classification as a reproducible workflow."""

__version__ = "0.1.0"
