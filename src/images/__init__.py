"""Images and faces in them: reading and writing, boxes and crops, dlib's detector."""

from src.images.boxes import (
    BOX_COLUMNS,
    MAX_MARGIN,
    Box,
    box_area,
    check_margin,
    crop_box,
    crop_to_margin,
    cut_faces,
    face_region,
    grow_box,
    shared_area,
)
from src.images.detector import MAX_SIDE, THRESHOLD, Face, FaceDetector, find_main_face
from src.images.io import (
    EXTENSIONS,
    ImageError,
    list_images,
    read_at_least,
    read_image,
    resize,
    write_image,
)

__all__ = [
    "BOX_COLUMNS",
    "EXTENSIONS",
    "MAX_MARGIN",
    "MAX_SIDE",
    "THRESHOLD",
    "Box",
    "Face",
    "FaceDetector",
    "ImageError",
    "box_area",
    "check_margin",
    "crop_box",
    "crop_to_margin",
    "cut_faces",
    "face_region",
    "find_main_face",
    "grow_box",
    "list_images",
    "read_at_least",
    "read_image",
    "resize",
    "shared_area",
    "write_image",
]
