"""Networks and their weight files: backbones, heads, optimizers, export, and the one module that touches a backend.

Names are imported on first use, so that reading the description of a weight file does not import Keras.
"""

import lazy_loader

from src.models import weights

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["weights"],
    submod_attrs={
        "backbones": [
            "batch_norm_momentum",
            "check_name",
            "check_size",
            "finalize_normalization",
            "set_batch_norm_momentum",
        ],
        "backend": [
            "broadcast",
            "compile_predict",
            "device_names",
            "gather",
            "join_processes",
            "local_device_count",
            "mirrored_scope",
            "moving_average",
            "sixteen_bit_type",
            "sync_state",
        ],
        "export": ["export_beside", "export_model"],
        "factory": ["exclude_from_weight_decay", "get_model", "get_optimizer", "get_scheduler"],
        "weights": weights.__all__,
    },
)
