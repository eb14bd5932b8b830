import pytest

from fsl_course._system.nearest import did_you_mean


@pytest.mark.parametrize(
    ("word", "said"),
    [("protonet", ' Did you mean "prototypical"?'), ("MAMl", ' Did you mean "maml"?'), ("xyz", ""), ("", ""), (7, "")],
)
def test_only_a_near_name_is_suggested(word, said):
    assert did_you_mean(word, ("maml", "prototypical", "siamese")) == said


def test_nothing_to_choose_from():
    assert did_you_mean("maml", ()) == ""
