"""YAML to a tree: any text is read or refused, and what YAML wrote is read as it was."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from arrayd.config.document import UnreadableError, parse_tree


@given(st.text(max_size=200))
def test_any_text_is_a_tree_or_mistakes_of_one_line(text: str) -> None:
    try:
        _, mistakes = parse_tree(text)
    except UnreadableError as error:
        mistakes = [error.mistake]
    assert not any("\n" in mistake.expected for mistake in mistakes)


Scalars = (
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(st.characters(codec="utf-8"), max_size=20)
)
Trees = st.recursive(
    Scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner), max_leaves=30
)


@given(Trees)
def test_what_yaml_writes_is_read_as_it_was(tree: object) -> None:
    read, mistakes = parse_tree(yaml.safe_dump(tree))
    assert mistakes == []
    assert read == tree
