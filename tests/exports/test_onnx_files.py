"""ONNX files give the same logits in onnxruntime."""

import json

import pytest

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_same_logits(case, pruned, small, images, check):
    from ctl_jax.exports import onnx_files

    model = small(case, pruned)
    session = onnxruntime.InferenceSession(onnx_files.files(model)["model.onnx"])
    classes = session.get_modelmeta().custom_metadata_map["classes"]
    assert tuple(json.loads(classes)) == model.classes
    for count in (1, 3):
        pixels = images(model, count)
        (found,) = session.run(["logits"], {"images": pixels})
        check(model, pixels, found)
