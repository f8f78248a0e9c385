"""What a run leaves on disk: the form of its folder and files, read and written here alone.

In: a folder. Out: its configuration, rows, result, thumbnails. Knows no model, so that reports can read all of it.
"""

from .folder import REPORT_FILE, RunFolder
from .scan_folder import SCAN_FILE, claim_scan_folder, read_scan, write_scan
from .thumbnails import Thumbnail, changed_images, make_thumbnails, read_thumbnails, write_thumbnails

__all__ = [
    "REPORT_FILE",
    "SCAN_FILE",
    "RunFolder",
    "Thumbnail",
    "changed_images",
    "claim_scan_folder",
    "make_thumbnails",
    "read_scan",
    "read_thumbnails",
    "write_scan",
    "write_thumbnails",
]
