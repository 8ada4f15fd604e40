"""The table of TPU kinds."""

import pytest

from ctl_jax.errors import UserError
from launch import tpus


@pytest.mark.parametrize(
    ("name", "group", "software"),
    [
        ("v2-8", False, "tpu-ubuntu2204-base"),
        ("v3-64", True, "tpu-ubuntu2204-base"),
        ("v4-8", False, "tpu-ubuntu2204-base"),
        ("v4-32", True, "tpu-ubuntu2204-base"),
        ("v5litepod-1", False, "v2-alpha-tpuv5-lite"),
        ("v5litepod-8", False, "v2-alpha-tpuv5-lite"),
        ("v5litepod-256", True, "v2-alpha-tpuv5-lite"),
        ("v5p-8", False, "v2-alpha-tpuv5"),
        ("v5p-12288", True, "v2-alpha-tpuv5"),
        ("v6e-8", False, "v2-alpha-tpuv6e"),
        ("tpu7x-8", False, "v2-alpha-tpu7-ubuntu2404"),
    ],
)
def test_each_type_has_its_software(name, group, software):
    assert tpus.check_type(name, group=group) == software


@pytest.mark.parametrize("name", ["v4-4", "v4-12", "v4-24", "v5litepod-2", "v6e-512", "v3-16"])
def test_sizes_that_are_not_there_are_refused(name):
    with pytest.raises(UserError, match=f"--type={name}: no slice has this size; expected "):
        tpus.check_type(name, group=True)


@pytest.mark.parametrize(
    ("accelerator", "topology", "hosts", "chips"),
    [
        ("tpu-v3-device", "2x2", 1, 4),
        ("tpu-v4-podslice", "2x2x1", 1, 4),
        ("tpu-v4-podslice", "2x2x2", 2, 4),
        ("tpu-v4-podslice", "4x8x8", 64, 4),
        ("tpu-v5-lite-podslice", "1x1", 1, 1),
        # A machine of eight chips, or two of four.
        ("tpu-v5-lite-podslice", "2x4", 1, 8),
        ("tpu-v5-lite-podslice", "2x4", 2, 4),
        ("tpu-v6e-slice", "16x16", 64, 4),
        ("tpu-v5p-slice", "16x16x24", 1536, 4),
        ("tpu7x", "1x1x1", 1, 1),
    ],
)
def test_topologies_are_hosts_times_chips(accelerator, topology, hosts, chips):
    assert tpus.chips_of_host(accelerator, topology, hosts) == chips
    for other in (hosts + 1, 3 * hosts):
        if (accelerator, topology, other) != ("tpu-v5-lite-podslice", "2x4", 2):
            with pytest.raises(UserError, match=f"--hosts={other}: expected hosts of "):
                tpus.chips_of_host(accelerator, topology, other)


@pytest.mark.parametrize("topology", ["4x2x2", "2x2x6", "3x4x4", "2x2", "4x4x260", "8x8x68"])
def test_topologies_that_are_not_there_are_refused(topology):
    with pytest.raises(UserError, match=f":{topology}: tpu-v4-podslice has no such topology"):
        tpus.chips_of_host("tpu-v4-podslice", topology, 4)
