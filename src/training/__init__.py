"""Training: the configuration in, weight files out.

`train` is imported when it is first used, so that `train.py --help` needs no Keras.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"overrides": ["hydra_arguments"], "train": ["train"]}
)
