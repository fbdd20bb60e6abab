"""Aquarius, Ocean's metadata cache: follows the chain, keeps the DDOs of published assets, validates and finds them.

Written to answer as upstream's Aquarius 5.1.8 does.
"""

VERSION = "5.1.8"
