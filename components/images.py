"""Container images of the components. ``step`` has no torch and no CUDA; ``ray`` has Ray, torch and timm."""

from hep2flow import __version__

STEP = f"hep2flow/step:{__version__}"
RAY = f"hep2flow/ray:{__version__}"
