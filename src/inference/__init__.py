"""Age and gender of faces: `AgeGenderEstimator` takes faces, `Predictor` finds them in images first."""

import lazy_loader

from src.models import check_weight_file

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "estimator": ["AgeGenderEstimator"],  # imports Keras
        "predictor": ["Estimator", "LabelledImage", "Prediction", "Predictor"],
    },
)
