"""The shipped recipes: ``NAME.yaml`` of the profile ``paper``, ``NAME.laptop.yaml`` of the profile ``laptop``."""
