"""The networks, built from timm's."""
