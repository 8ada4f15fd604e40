"""Starts `ctl_jax.main` on clusters; see README.md and e.g. `python -m launch.tpu --help`."""
