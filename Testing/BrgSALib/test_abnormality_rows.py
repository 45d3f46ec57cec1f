"""The list under edit, without a widget."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brgsa.abnormalities import AbnormalityList
from BrgSALib.abnormality_rows import AbnormalityRows


@pytest.fixture
def rows():
    rows = AbnormalityRows()
    rows.load(AbnormalityList.from_names(["Emphysema", "Lung nodule", "Pleural effusion"], "mine"))
    return rows


def names(rows):
    return [row.name for row in rows.rows]


def test_a_list_comes_back_as_it_was_loaded():
    for preset in AbnormalityList.presets():
        rows = AbnormalityRows()
        rows.load(AbnormalityList.preset(preset))
        assert rows.to_list().abnormalities == AbnormalityList.preset(preset).abnormalities


def test_a_list_that_was_changed_does_not_claim_to_be_the_preset(rows):
    assert rows.to_list().name == "mine"
    rows.edit(0, on=False)
    rows.edit(1, on=False)
    assert rows.to_list().name == "mine (edited)"
    rows.undo()
    rows.undo()
    assert rows.to_list().name == "mine"


def test_rows_switched_off_are_not_scored_but_kept(rows):
    rows.edit(1, on=False)
    assert rows.to_list().names == ("Emphysema", "Pleural effusion")
    assert len(rows) == 3
    rows.switch(True)
    assert len(rows.to_list()) == 3


def test_a_prompt_follows_the_name_until_it_is_written_by_hand(rows):
    rows.edit(0, name="Bulla")
    assert rows.to_list()[0].prompts == ("There is Bulla",)
    rows.edit(0, prompt="large bullae | emphysematous bullae")
    rows.edit(0, name="Bullae")
    assert rows.to_list()[0].prompts == ("large bullae", "emphysematous bullae")
    rows.edit(0, prompt="There is Bullae")
    assert rows.rows[0].prompt == ""


def test_pasted_lines_become_rows_once_and_where_they_belong(rows):
    added = rows.add(["  Hiatal   hernia ", "lung nodule", "", "Fracture\tbroken rib", "Fracture"], after=0)
    assert added == [1, 2]
    assert names(rows) == ["Emphysema", "Hiatal hernia", "Fracture", "Lung nodule", "Pleural effusion"]
    assert rows.rows[2].shown_prompt == "broken rib"


def test_rows_are_added_duplicated_moved_and_removed(rows):
    assert [rows.add_blank(), rows.add_blank()] == [3, 4]
    assert names(rows)[3:] == ["New abnormality", "New abnormality 2"]
    assert rows.duplicate(0) == 1 and rows.rows[1].name == "Emphysema 2"
    assert rows.rows[1].prompt == "There is Emphysema"
    assert rows.move(0, 1) == 1 and names(rows)[:2] == ["Emphysema 2", "Emphysema"]
    assert rows.move(0, -1) == 0
    rows.remove([0, 4, 5])
    assert names(rows) == ["Emphysema", "Lung nodule", "Pleural effusion"]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"name": ""}, "empty"),
        ({"name": "lung NODULE"}, 'Row 2 has the name "lung NODULE" already'),
        ({"prompt": "Emphysema"}, "one word"),
        ({"prompt": "胸水 がある"}, "ASCII"),
    ],
)
def test_a_wrong_row_is_named_and_left_out(rows, values, part):
    rows.edit(2, **values)
    problems = rows.problems()
    assert list(problems) == [2] and part in problems[2]
    assert len(rows.to_list()) == 2
    rows.edit(2, on=False)
    assert not rows.problems()


def test_every_change_can_be_undone_up_to_the_loading(rows):
    before = [rows.to_json()]
    for change in (
        lambda: rows.edit(0, on=False),
        lambda: rows.remove([1]),
        lambda: rows.add(["Fracture"]),
        lambda: rows.duplicate(0),
        lambda: rows.move(0, 1),
    ):
        change()
        before.append(rows.to_json())
    for expected in reversed(before[:-1]):
        rows.undo()
        assert rows.to_json() == expected
    rows.undo()
    assert not rows.can_undo and len(rows) == 0


def test_a_scene_gives_back_rows_that_are_off_wrong_or_coded(rows):
    rows.load(AbnormalityList.preset("ct-rate-18"))
    rows.edit(3, on=False)
    rows.edit(4, name="")
    again = AbnormalityRows()
    again.load_json(rows.to_json())
    assert again.rows == rows.rows and again.preset == "ct-rate-18" and not again.can_undo


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"name": 1, "rows": [3]}', '{"rows": [{"on": 1}]}', "[" * 9999])
def test_a_scene_that_holds_something_else_changes_nothing(rows, text):
    before = rows.to_json()
    rows.load_json(text)
    assert rows.to_json() == before


@given(
    st.lists(
        st.fixed_dictionaries({"name": st.text(max_size=20)}, optional={"prompts": st.lists(st.text(), max_size=2)}),
        max_size=5,
    )
)
def test_no_scene_text_makes_the_list_fail(content):
    rows = AbnormalityRows()
    rows.load_json(json.dumps({"name": "x", "rows": content}))
    assert set(rows.problems()) <= set(range(len(rows)))
