"""Weight files that describe themselves: save, identify, load; the bundled ones and published ones."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "info": ["WeightsInfo", "storable"],
        "onnx": ["is_onnx", "open_session", "write_info"],
        "published": ["BUNDLED", "bundled", "check_weight_file"],
        "sandbox": ["resolve"],
        "store": ["identify", "load_model", "load_weights_into", "save_weights"],
    },
)
