"""How the digests that name data sets, splits and results are written."""

DIGEST_LENGTH = 32  # hexadecimal digits, 128 bits
