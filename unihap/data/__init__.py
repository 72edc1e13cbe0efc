"""Datasets, transforms, samplers and loaders: from files to batches."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version when imported
