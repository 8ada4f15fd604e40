"""The data commands; see `ctl_jax.data.commands`."""

import sys

from ctl_jax.data.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
