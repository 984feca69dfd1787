"""The decorator of all components: one image with everything installed."""

from __future__ import annotations

import functools
import os

from kfp import dsl

from dwcp_ml import __version__

IMAGE = os.environ.get("DWCP_TRAINER_IMAGE", f"dwcp-ml-trainer-python:{__version__}")
"""The trainer image; the local runner warns about images without ``python`` in their name."""

component = functools.partial(
    dsl.component,
    base_image=IMAGE,
    install_kfp_package=False,  # the default would install kfp at every pod start
)
"""``dsl.component`` with the project's image, and no installation at start."""
