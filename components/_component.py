"""How every component of this project is made: from one image that already holds everything."""

from __future__ import annotations

import functools
import os

from kfp import dsl

from dwcp_ml import __version__

IMAGE = os.environ.get("DWCP_TRAINER_IMAGE", f"dwcp-ml-trainer-python:{__version__}")
"""The trainer image. ``python`` in its name keeps the local runner from warning about it."""

component = functools.partial(
    dsl.component,
    base_image=IMAGE,
    install_kfp_package=False,  # the default installs kfp at every pod start
)
"""``dsl.component`` with the project's image and without any installation at start."""
