"""Images for training and evaluation: found, checked, kept apart, and served from a memory-mapped cache.

Resolving sets imports no torch; only the crops do.
"""

from rdc.data.cache import PixelCache
from rdc.data.images import pixel_sha256, read_rgb
from rdc.data.index import Progress
from rdc.data.resolve import check_config, resolve_eval, resolve_train
from rdc.data.roots import cache_root
from rdc.data.sets import ImageFile, ImageSet, check_disjoint, split

__all__ = [
    "ImageFile",
    "ImageSet",
    "PixelCache",
    "Progress",
    "cache_root",
    "check_config",
    "check_disjoint",
    "pixel_sha256",
    "read_rgb",
    "resolve_eval",
    "resolve_train",
    "split",
]
