"""Weight files that describe themselves: save, identify, load; the bundled one and those that others published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "info": ["WeightsInfo"],
        "published": ["BUNDLED", "bundled"],
        "store": ["SAVE_DTYPES", "identify", "load_model", "load_weights_into", "save_weights"],
    },
)
