"""Images and faces in them: reading and writing, boxes and crops, dlib's detector.

Names, which `__init__.pyi` lists, are imported on first use, so that finding files does not import OpenCV.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
