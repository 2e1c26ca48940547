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
    overlap,
    shared_area,
)
from src.images.detector import FRONTAL, MAX_SIDE, PROFILES, Face, FaceDetector, find_main_face
from src.images.folder import EXTENSIONS, FoundImages, find_images, list_images
from src.images.io import (
    MAX_FILE_BYTES,
    ImageError,
    decode_image,
    read_at_least,
    read_image,
    resize,
    unreadable_reason,
    write_image,
)
