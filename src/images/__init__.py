"""Images and faces in them: reading and writing, boxes and crops, dlib's detector.

Names are imported on first use, so that finding files does not import OpenCV.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "boxes": [
            "BOX_COLUMNS",
            "Box",
            "box_area",
            "crop_box",
            "crop_to_margin",
            "cut_faces",
            "face_region",
            "grow_box",
            "overlap",
            "shared_area",
        ],
        "detector": ["FRONTAL", "MAX_SIDE", "PROFILES", "Face", "FaceDetector", "find_main_face"],
        "folder": ["EXTENSIONS", "FoundImages", "find_images", "list_images"],
        "io": [
            "MAX_FILE_BYTES",
            "ImageError",
            "decode_image",
            "read_at_least",
            "read_image",
            "resize",
            "unreadable_reason",
            "write_image",
        ],
    },
)
