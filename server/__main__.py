"""`python -m server` is `tiedlm`."""

import sys

from server.cli import main

sys.exit(main())
