"""Tables of labelled face images: every source of one, and face crops out of whole photos."""

from src.datasets import label_checks
from src.datasets.appa_real import FOLDERS as APPA_REAL_FOLDERS, load as load_appa_real
from src.datasets.cropping import CropSettings, crop_folder
from src.datasets.csv_table import write_csv
from src.datasets.faces import load_training_part, read_faces
from src.datasets.imdb_wiki import create_db as create_imdb_wiki
from src.datasets.label_checks import BLUE, GREY, ORANGE, new_figure
from src.datasets.table import face_boxes, load_table, require_crops, require_margin
from src.datasets.utkface import create_db as create_utkface
