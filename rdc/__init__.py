"""Neural image codecs: models, training, evaluation and the measuring of one architecture."""

__version__ = "0.1.0"
