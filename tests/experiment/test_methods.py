"""Names of methods."""

import inspect

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.errors import UserError
from ctl_jax.experiment import Method, parse_method
from ctl_jax.experiment.methods import Cut
from ctl_jax.experiment.tunings import AUTO, FULL, TUNINGS, Tuning, choices
from ctl_jax.pruning import SCOPES


@pytest.mark.parametrize(
    ("name", "method", "canonical"),
    [
        ("dense", Method(), "dense"),
        ("dense ", Method(), "dense"),
        ("dense+full", Method(), "dense"),
        ("scratch", Method("random"), "scratch"),
        ("linear_probe", Method(tuning=Tuning("linear_probe")), "linear_probe"),
        ("dense+linear_probe", Method(tuning=Tuning("linear_probe")), "linear_probe"),
        ("filters@0.5", Method(cut=Cut("filters", 0.5)), "filters@0.5"),
        ("channels@.25", Method(cut=Cut("channels", 0.25)), "channels@0.25"),
        ("filters@0.50", Method(cut=Cut("filters", 0.5)), "filters@0.5"),
        ("filters@5e-1", Method(cut=Cut("filters", 0.5)), "filters@0.5"),
        (" filters @ 00.5 ", Method(cut=Cut("filters", 0.5)), "filters@0.5"),
        ("all@0.125", Method(cut=Cut("all", 0.125)), "all@0.125"),
        (
            " filters@.5 + head_bn",
            Method(cut=Cut("filters", 0.5), tuning=Tuning("head_bn")),
            "filters@0.5+head_bn",
        ),
        ("head_bn", Method(tuning=Tuning("head_bn")), "dense+head_bn"),
        ("dense+freeze @ 02", Method(tuning=Tuning("freeze", (2,))), "dense+freeze@2"),
        ("freeze@2", Method(tuning=Tuning("freeze", (2,))), "dense+freeze@2"),
        ("scratch+lp_ft", Method("random", tuning=Tuning("lp_ft")), "scratch+lp_ft"),
        ("probe", Method(tuning=Tuning("probe")), "probe"),
        (" dense + auto ", Method(tuning=Tuning("auto")), "auto"),
        ("dense+probe@taps@ridge", Method(tuning=Tuning("probe")), "probe"),
        (
            "probe@last@logistic",
            Method(tuning=Tuning("probe", (), (("solver", "logistic"), ("head", "last")))),
            "probe@logistic@last",
        ),
        ("dense@048px", Method(image_size=48), "dense@48px"),
        ("dense @ 1stage", Method(stages=1), "dense@1stages"),
        (
            "dense@48px+probe",
            Method(tuning=Tuning("probe"), image_size=48),
            "dense@48px+probe",
        ),
        ("scratch:filters@.5", Method("random", Cut("filters", 0.5)), "scratch:filters@0.5"),
        (
            "filters@0.5:lsq : isomorphic:taylor @ 48px+lp_ft",
            Method(
                cut=Cut("filters", 0.5, "taylor", "isomorphic", True),
                tuning=Tuning("lp_ft"),
                image_size=48,
            ),
            "filters@0.5:taylor:isomorphic:lsq@48px+lp_ft",
        ),
        (
            "filters@0.5 : bn:lsq+probe",
            Method(cut=Cut("filters", 0.5, lsq=True, statistics=True), tuning=Tuning("probe")),
            "filters@0.5:lsq:bn+probe",
        ),
        ("filters@0.5:l2:uniform", Method(cut=Cut("filters", 0.5, "l2")), "filters@0.5:l2"),
        (
            "channels@.5+linear_probe",
            Method(cut=Cut("channels", 0.5), tuning=Tuning("linear_probe")),
            "channels@0.5+linear_probe",
        ),
        ("previous", Method(learner="previous"), "previous"),
        ("previous : dense", Method(learner="previous"), "previous"),
        (
            "dynamic:filters@.5+head_bn",
            Method(cut=Cut("filters", 0.5), tuning=Tuning("head_bn"), learner="dynamic"),
            "dynamic:filters@0.5+head_bn",
        ),
        ("dynamic@domain:probe", Method(tuning=Tuning("probe"), learner="dynamic@domain"), None),
        (
            "previous:scratch:filters@0.5",
            Method("random", Cut("filters", 0.5), learner="previous"),
            None,
        ),
        ("previous:auto", Method(tuning=Tuning("auto"), learner="previous"), None),
        (
            "pretrained:filters@0.5:taylor",
            Method(cut=Cut("filters", 0.5, "taylor")),
            "filters@0.5:taylor",
        ),
        ("independent", Method("random"), "scratch"),
        ("independent:filters@0.5", Method("random", Cut("filters", 0.5)), "scratch:filters@0.5"),
    ],
)
def test_reads_a_name(name, method, canonical):
    assert parse_method(name) == method
    assert method.name == (canonical or name)
    assert method.pretrained == (method.start == "pretrained")


def _argument(parameter):
    annotation = parameter.annotation
    if parameter.kind is parameter.KEYWORD_ONLY:
        return st.sampled_from(sorted(filter(None, choices(annotation))))
    numbers = {int: st.integers(), float: st.floats(allow_nan=False)}
    return numbers[annotation].map(repr)


@st.composite
def methods(draw):
    """Any method that there is, however it is written."""
    scope, ratio = draw(st.sampled_from(SCOPES)), draw(st.floats(1e-300, 1 - 2**-53))
    words = draw(st.permutations(["taylor", "global", "lsq", "bn"])) if draw(st.booleans()) else []
    cut = ":".join([draw(st.sampled_from([f"{scope}@{ratio!r}", f" {scope} @{ratio}"])), *words])
    start = draw(st.sampled_from(["dense", "scratch", cut, f"scratch:{cut}"]))
    start += draw(st.sampled_from(["", "@2stages", " @ 3 stages"]))
    start += draw(st.sampled_from(["", "@48px", " @ 0224 px"]))
    name = draw(st.sampled_from(sorted(TUNINGS)))
    start = "dense" if name == AUTO else start
    parameters = list(inspect.signature(TUNINGS[name]).parameters.values())[1:]
    given = [p for p in parameters if p.kind is not p.KEYWORD_ONLY or draw(st.booleans())]
    values = [draw(_argument(parameter)) for parameter in given]
    tuning = "@".join([name, *values])
    return draw(st.sampled_from([start, tuning, f"{start}+{tuning}", f"{start} + {tuning} "]))


@hypothesis.given(methods())
def test_a_name_is_read_back_as_the_same_method_of_the_same_name(name):
    method = parse_method(name)
    again = parse_method(method.name)
    assert (again, again.name) == (method, method.name)
    assert method.name == method.name.replace(" ", "")
    alone = method.name.partition("@")[0] in TUNINGS.keys() - {"full"}
    assert (method.tuning == FULL) == ("+" not in method.name and not alone)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "+head_bn",
        "Dense",
        "filters",
        "filters@",
        "filter@0.5",
        "filters@a",
        "filters@nan",
        "filters@inf",
        "filters@-0.5",
        "filters@\u0660.\u0665",
        "filters@0,5",
        "filters@.",
        "filters@0x1",
        "filters@1_0e-2",
        "filters@0.5@0.5",
        "filters+head_bn",
        "lienar_probe",
    ],
)
def test_an_unknown_name_is_told_the_known_ones(name):
    with pytest.raises(UserError, match=r"unknown method .*dense, scratch, .*filters@RATIO"):
        parse_method(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Dense", "'dense'"),
        ("filter@RATIO", "'filters@RATIO'"),
        ("scrach", "'scratch'"),
        ("lienar_probe", "'linear_probe'"),
    ],
)
def test_a_hint(name, hint):
    with pytest.raises(UserError, match=rf"; did you mean {hint}\?$"):
        parse_method(name)


def test_a_hint_is_not_the_name_itself():
    with pytest.raises(UserError) as error:
        parse_method("filters@RATIO")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("ratio", [0.1, 1 / 3, 1e-7, 0.5000000000000001, 1 - 2**-53])
def test_a_ratio_is_read_back(ratio):
    method = parse_method(f"filters@{ratio!r}")
    assert (method.cut.ratio, parse_method(method.name)) == (ratio, method)


@pytest.mark.parametrize(
    "name",
    [
        "filters@1e-400",
        "filters@1e400",
        "filters@0.99999999999999999",
        "filters@0",
        "filters@1",
        "channels@1.5",
        "filters@0.0",
    ],
)
def test_a_ratio_that_drops_nothing_or_everything(name):
    with pytest.raises(UserError, match=rf"{name}.* between 0 and 1"):
        parse_method(name)


@pytest.mark.parametrize(
    "network", ["scratch", "filters@0.5", "scratch:all@.5", "dense@48px", "dense@2stages"]
)
def test_auto_stands_alone(network):
    with pytest.raises(UserError, match=rf"'{network}\+auto': auto chooses .* expected it alone$"):
        parse_method(f"{network}+auto")
    assert parse_method("auto").is_auto
    assert not parse_method("probe").is_auto
