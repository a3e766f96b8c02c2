"""The sample images of a report, with what each prediction has right and what it lost."""

import numpy as np

from contseg.report.samples import sample_tables

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
SAMPLES = {
    "names": np.array(["a"]), "classes": np.array(["background", "cat", "dog"]), "truth0": TRUTH,
    "colours": np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8), "image0": np.zeros((2, 4, 3), np.uint8),
}  # fmt: skip


def facts(*predictions, samples=SAMPLES):
    return {
        "samples": samples,
        "predictions": [{"prediction0": np.array(one, np.uint8)} if one else {} for one in predictions],
        "iou": [np.zeros(2 + step) for step in range(len(predictions))],  # cat is of step 0, dog of step 1
    }


FIRST, LAST = [[0, 0, 1, 1], [0, 0, 0, 0]], [[0, 0, 0, 1], [2, 0, 0, 0]]


def test_shares_are_of_the_labelled_pixels_of_classes_known_by_then():
    (table,) = sample_tables({"run": facts(FIRST, LAST)})
    (image,) = table["images"]
    before, after = image["runs"][0]
    assert (before["right"], before["lost"]) == (1.0, None)  # dog is not known yet
    assert (after["right"], after["lost"]) == (4 / 6, 1 / 4)
    assert (image["right"], image["lost"]) == (4 / 6, 1 / 4)
    assert "entropy" not in after
    assert table["drawn"] == 0


def test_an_image_that_was_not_stored_at_a_step_has_no_prediction_there():
    (table,) = sample_tables({"run": facts(None, LAST)})
    before, after = table["images"][0]["runs"][0]
    assert before is None
    assert (after["right"], after["lost"]) == (4 / 6, None)


def test_doubt_and_random_draws_are_shown_where_a_run_stored_them():
    run = facts(FIRST, LAST, samples=SAMPLES | {"drawn": np.array([True])})
    run["predictions"][1] |= {"entropy0": np.zeros((1, 2), np.uint8), "margin0": np.zeros((1, 2), np.uint8)}
    (table,) = sample_tables({"run": run})
    assert table["drawn"] == 1
    before, after = table["images"][0]["runs"][0]
    assert "entropy" not in before
    assert after["entropy"].startswith("data:image/jpeg")


def test_runs_with_the_same_images_share_a_table_and_others_have_their_own():
    other = SAMPLES | {"names": np.array(["b"])}
    runs = {"one": facts(FIRST), "two": facts(FIRST, LAST), "three": facts(FIRST, samples=other)}
    first, second = sample_tables(runs)
    assert (list(first["runs"]), list(second["runs"])) == (["one", "two"], ["three"])
    assert first["steps"] == 2
    assert [name for name, _ in first["legend"]] == ["background", "cat", "dog"]
