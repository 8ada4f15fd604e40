"""Installs ctl_jax: `pip install -e .[test]`."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ctl_jax/__init__.py").read_text())
assert VERSION is not None

setuptools.setup(
    name="ctl-jax",
    version=VERSION.group(1),
    description="Compute-optimal transfer learning: structured pruning before finetuning, in JAX.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["ctl_jax", "ctl_jax.*"]),
    package_data={
        "ctl_jax.data": ["nevis22/*.csv"],
        "ctl_jax.experiment.auto": ["prior.json"],
        "ctl_jax.report": ["*.css", "*.html", "*.js"],
        "ctl_jax": ["py.typed"],
    },
    install_requires=[
        "absl-py>=2.1",
        # TFDS reads and writes this format without TensorFlow.
        "array-record>=0.8",
        "chex>=0.1.90",
        "etils[epath]>=1.9",
        # For `jax.export`, which does not declare it.
        "flatbuffers>=24",
        "flax>=0.12",
        "fsspec>=2025.3",
        # Checksums of TFRecord files.
        "google-crc32c>=1.6",
        "grain>=0.2.18",
        # TFDS imports it without declaring it.
        "importlib_resources>=6",
        "jax>=0.10",
        # Comes with jax; named since its version is part of the key of compiled programs.
        "jaxlib>=0.10",
        "jinja2>=3.1",
        # Comes with jinja2.
        "markupsafe>=2.1",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        # Comes with jax; weights may be bfloat16.
        "ml-dtypes>=0.4",
        # Comes with flax, whose weights it reads.
        "msgpack>=1.0",
        "numpy>=2.0",
        "onnx>=1.17",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        # What `ctl_jax.report.load` gives.
        "pandas>=3.0",
        "pillow>=11",
        # The charts of report.html, which holds its script.
        "plotly>=6",
        "pyarrow>=17",
        # For launch/gke.py.
        "pyyaml>=6",
        "rich>=13.9",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        # Comes with jax.
        "scipy>=1.15",
        # Writes TensorBoard's files; brings neither TensorFlow nor torch.
        "tensorboardX>=2.6.3",
        "tensorflow-datasets>=4.9.9",
    ],
    extras_require={
        "test": [
            # Has axe-core, which checks the report's page.
            "axe-playwright-python>=0.1.4",
            # Libraries whose networks `ctl_jax.pruning` is tested on.
            "dm-haiku>=0.0.16",
            "equinox>=0.13",
            "h5py>=3.11",
            "hypothesis>=6.100",
            # Kubernetes' own schemas, for launch/gke.py.
            "kubernetes-validate>=1.34",
            "mypy>=1.18",
            # Drives chromium.
            "playwright>=1.50",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            # Comes with TFDS, whose downloads the tests stand in for.
            "requests>=2.32",
            "ruff>=0.14",
        ],
        # What benchmarks and some tests compare with.
        "compare": ["onnxruntime>=1.20", "torch>=2.6", "torch-pruning>=1.6"],
        # The documentation's site.
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6",
            "mkdocstrings[python]>=1.0",
            # Signatures are formatted by it.
            "ruff>=0.14",
        ],
        # Run folders in Google's object store.
        "gcs": ["gcsfs>=2025.3"],
        # Weights from the Hugging Face Hub.
        "hf": ["huggingface_hub>=0.30"],
        # Weights that Keras has written.
        "keras": ["h5py>=3.11"],
        # Weights that torch has written.
        "torch": ["torch>=2.6"],
    },
)
