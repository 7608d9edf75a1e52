"""params.yaml, a preset and --set become one validated config, or one line that says what is wrong."""

from __future__ import annotations

import copy

import pytest
from headwater_counting.cli import CountConfig
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts.config import defaults, load_section, override, parse, resolved
from headwater_data._contracts.errors import UsageError
from headwater_data.config import FilterConfig

leaves = st.integers() | st.text(max_size=3) | st.none() | st.lists(st.integers(), max_size=2)
trees = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_leaves=6),
    max_size=4,
)


@pytest.fixture
def params(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "params.yaml").write_text(
        "scale: tiny\ncount:\n  minimum_length: 2\n  ballast: {bytes: 10, by: numpy}\n"
    )
    (tmp_path / "configs" / "tiny.yaml").write_text("count: {ballast: {bytes: 20}}\n")
    (tmp_path / "configs" / "small.yaml").write_text("other: {}\n")
    return tmp_path / "params.yaml"


def fault(function, *arguments) -> str:
    with pytest.raises(UsageError) as found:
        function(*arguments)
    assert "\n" not in str(found.value) and found.value.exit_code == 2
    return str(found.value)


def overlaid(below, above, tmp_path_factory):
    import yaml

    folder = tmp_path_factory.mktemp("params")
    (folder / "configs").mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump({"scale": "s", "stage": below}))
    (folder / "configs" / "s.yaml").write_text(yaml.safe_dump({"stage": above}))
    return load_section(folder / "params.yaml", "stage")


def paths(tree, prefix=()):
    """Every leaf with the keys that lead to it; an empty mapping is a leaf, but says nothing when overlaid."""
    if isinstance(tree, dict) and tree:
        return {path: leaf for key, inner in tree.items() for path, leaf in paths(inner, (*prefix, key)).items()}
    return {prefix: tree}


@given(trees, trees)
def test_the_preset_holds_where_it_speaks_and_the_params_everywhere_else(tmp_path_factory, below, above):
    merged = paths(overlaid(below, above, tmp_path_factory))
    spoken = {path: leaf for path, leaf in paths(above).items() if leaf != {}}
    assert {path: merged[path] for path in spoken} == spoken
    for path, leaf in paths(below).items():
        touched = any(p[: len(path)] == path or path[: len(p)] == p for p in paths(above) if p)
        assert touched or not path or merged[path] == leaf


@given(trees, st.lists(st.sampled_from("abcd"), min_size=1, max_size=3), st.integers())
def test_an_override_sets_one_leaf_and_changes_nothing_that_it_was_given(tree, keys, value):
    before = copy.deepcopy(tree)
    node = override(tree, [f"{'.'.join(keys)}={value}"])
    for key in keys:
        node = node[key]
    assert node == value and tree == before


def test_set_holds_over_the_preset_and_the_preset_over_the_params(params):
    config = parse(CountConfig, load_section(params, "count", None, ["minimum_length=3"]), "count")
    assert (config.minimum_length, config.ballast.bytes, config.ballast.by) == (3, 20, "numpy")
    config = parse(CountConfig, load_section(params, "count", "small"), "count")
    assert (config.minimum_length, config.ballast.bytes) == (2, 10)


def test_set_without_a_params_file_changes_one_leaf_of_the_defaults():
    config = parse(FilterConfig, override(defaults(FilterConfig), ["rules.gopher_short_doc.threshold=20"]), "filter")
    changed = {name for name, rule in FilterConfig().rules.items() if config.rules[name] != rule}
    assert changed == {"gopher_short_doc"} and config.rules["gopher_short_doc"].threshold == 20


def test_an_unknown_scale_lists_the_presets(params):
    assert "scale is one of: small, tiny" in fault(load_section, params, "count", "huge")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minimum_lenght": 1}, "count.minimum_lenght: unknown parameter; did you mean minimum_length?"),
        ({"ballast": {"byte": 1}}, "count.ballast.byte: unknown parameter; did you mean bytes?"),
        ({"minimum_length": "many"}, "count.minimum_length: Input should be a valid integer"),
        ({"minimum_length": 0}, "count.minimum_length: Input should be greater than or equal to 1"),
        ({"ballast": {"by": "hand"}}, "count.ballast.by: Input should be 'python', 'numpy' or 'polars'"),
        ({"ballast": 5}, "count.ballast: Input should be a valid dictionary or instance of Ballast"),
        ({"minimum_length": 9, "maximum_length": 3}, "minimum_length is above maximum_length: no word is left"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_place(values, message):
    assert message in fault(parse, CountConfig, values, "count")


def test_several_faults_are_told_at_once():
    told = fault(parse, CountConfig, {"minimum_length": "many", "balast": {}}, "count")
    assert "count.minimum_length" in told and "did you mean ballast?" in told


@pytest.mark.parametrize("item", ["minimum_length", "=3", "ballast={", "a=[1"])
def test_a_malformed_set_is_one_line_that_quotes_it(item):
    assert f"--set {item}: " in fault(override, {}, [item])


@pytest.mark.parametrize("content", ["count: [1, 2]", "- 1", "count: {", "\x00"])
def test_params_that_are_no_mapping_are_one_line_that_names_the_file(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert str(path) in fault(load_section, path, "count")


def test_params_that_are_missing_or_a_folder_are_one_line(tmp_path):
    assert "No such file" in fault(load_section, tmp_path / "params.yaml", "count")
    assert "Is a directory" in fault(load_section, tmp_path, "count")


def test_the_resolved_config_reads_back_as_the_same_config():
    config = parse(CountConfig, {"ballast": {"bytes": 7}}, "count")
    assert parse(CountConfig, resolved(config), "count") == config
    assert resolved(config)["maximum_length"] == "Infinity"
