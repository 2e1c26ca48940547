"""Networks and their weight files: backbones, heads, optimizers, export, and the one module that touches a backend.

Names are imported on first use, so that reading the description of a weight file does not import Keras.
"""

import lazy_loader

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
        "factory": [
            "check_optimizer_name",
            "exclude_from_weight_decay",
            "get_model",
            "get_optimizer",
            "get_scheduler",
        ],
        "weights": [
            "SAVE_DTYPES",
            "WeightsInfo",
            "bundled",
            "identify",
            "identify_path",
            "is_onnx",
            "load_model",
            "load_path",
            "load_weights_into",
            "open_session",
            "resolve",
            "save_weights",
        ],
    },
)
