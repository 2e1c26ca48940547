"""Age and gender estimation: the work behind the scripts at the project's root.

Arrays follow one contract everywhere: an image is `uint8`, shape `(height, width, 3)`, RGB.
"""

import os
import sys

from src.quiet import QuietImport

__version__ = "1.0.0"

# Read by OpenCV when it is first imported. 2**27 pixels (134 megapixels, 400 MB decoded) is more than any camera
# writes; a larger file is reported as unreadable instead of taking the machine's memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))
# OpenCV's own warnings repeat what our error lines say by name.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
# TensorFlow prints a screenful about processor features before the first useful line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.meta_path.insert(0, QuietImport("tensorflow"))
