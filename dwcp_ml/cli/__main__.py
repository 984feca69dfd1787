"""``python -m dwcp_ml.cli`` is ``dwcp-ml``."""

import sys

from dwcp_ml.cli import main

sys.exit(main())
