"""The data commands; see `ctl_jax.data.cli`."""

import sys

from ctl_jax import startup, streams

if __name__ == "__main__":
    # Before the import below, which imports what looks at the environment.
    startup.prepare("ctl_jax.data")

from ctl_jax.data.cli import main

if __name__ == "__main__":
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
