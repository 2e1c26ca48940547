from .boxes import (
    BOX_COLUMNS as BOX_COLUMNS,
    Box as Box,
    box_area as box_area,
    crop_box as crop_box,
    crop_to_margin as crop_to_margin,
    cut_faces as cut_faces,
    face_region as face_region,
    grow_box as grow_box,
    overlap as overlap,
    shared_area as shared_area,
)
from .detector import (
    FRONTAL as FRONTAL,
    MAX_SIDE as MAX_SIDE,
    PROFILES as PROFILES,
    SMALL_FACES as SMALL_FACES,
    SMALL_WINDOW as SMALL_WINDOW,
    Face as Face,
    FaceDetector as FaceDetector,
    find_main_face as find_main_face,
)
from .folder import (
    EXTENSIONS as EXTENSIONS,
    RESULTS_MARK as RESULTS_MARK,
    FoundImages as FoundImages,
    find_images as find_images,
    list_images as list_images,
)
from .io import (
    MAX_FILE_BYTES as MAX_FILE_BYTES,
    ImageError as ImageError,
    decode_image as decode_image,
    read_at_least as read_at_least,
    read_bytes as read_bytes,
    read_image as read_image,
    resize as resize,
    unreadable_reason as unreadable_reason,
    write_image as write_image,
)
