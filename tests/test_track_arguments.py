from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.errors import SamonnxError
from samonnx.runtime.prompts import Box, Points
from samonnx.track_arguments import check_boxes, make_prompts, parse_arguments


def test_a_prompt_belongs_to_the_object_and_frame_before_it() -> None:
    line = (
        "dist/x clip.mp4 --point 1,2 --point 3,4,0 --object 5 --box 1,1,8,8 --frame 7 --point 5.5,6 --object 1 "
        "--point 8,8 -o out.mp4"
    )
    prompts = make_prompts(parse_arguments(line.split()).prompts)
    assert {frame: sorted(objects) for frame, objects in prompts.items()} == {0: [1, 5], 7: [1, 5]}
    assert prompts[0][1].points == Points(((1.0, 2.0), (3.0, 4.0)), (1, 0))
    assert prompts[0][5].boxes == (Box(1, 1, 9, 9),)
    assert prompts[0][5].points is None
    assert prompts[7][5].points == Points(((5.5, 6.0),), (1,))
    assert prompts[7][1].points == Points(((8.0, 8.0),), (1,))


def test_a_box_and_clicks_of_one_object_go_together() -> None:
    prompts = make_prompts(
        parse_arguments(["d", "v", "--box", "1,1,8,8", "--point", "2,2", "--masks-dir", "m"]).prompts
    )
    assert prompts[0][1].boxes == (Box(1, 1, 9, 9),)
    assert prompts[0][1].points == Points(((2.0, 2.0),), (1,))


def test_words_and_exemplars_belong_to_their_object_too() -> None:
    line = ["d", "v", "--text", "a dog", "--object", "4", "--exemplar", "1,1,8,8", "--exemplar", "2,2,6,6,0"]
    parsed = parse_arguments([*line, "--threshold", "0.7", "--vocabulary", "v.txt", "-o", "o.mp4"])
    prompts = make_prompts(parsed.prompts)
    assert (prompts[0][1].text, prompts[0][1].exemplars) == ("a dog", ())
    assert (prompts[0][4].text, prompts[0][4].exemplars) == (None, (Box(1, 1, 9, 9), Box(2, 2, 8, 8, 0)))
    assert (parsed.threshold, parsed.vocabulary) == (0.7, Path("v.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "a dog", "--point", "5,6"], "object 1, frame 0: words stand for every instance on the frame"),
        (["--exemplar", "1,1,9,9", "--box", "1,1,9,9"], "object 1, frame 0: exemplars stand for every instance"),
        (["--box", "1,1,8,8,0"], "object 1, frame 0: box (1, 1, 9, 9) has label 0, but an object is tracked from"),
        (["--box", "1,1,8,8", "--box-corners", "1,1,9,9"], "object 1 has 2 boxes on frame 0; expected one"),
        (["--frame", "3", "--object", "2", *["--text", "dog"] * 2], "object 2 has 2 texts on frame 3; expected one"),
        (["--mask", "none.png"], "object 1, frame 0: mask none.png does not exist"),
    ],
)
def test_prompts_that_do_not_go_together_name_object_and_frame(options: list[str], message: str) -> None:
    parsed = parse_arguments(["d", "v", *options, "-o", "o.mp4"])
    with pytest.raises(SamonnxError) as caught:
        make_prompts(parsed.prompts)
    assert str(caught.value).startswith(message)


def test_parsing_twice_does_not_carry_prompts_over() -> None:
    for _ in range(2):
        assert len(parse_arguments(["d", "v", "--point", "1,1", "-o", "o.mp4"]).prompts) == 1


def test_a_box_beyond_the_frame_names_object_and_frame() -> None:
    parsed = parse_arguments(["d", "v", "--frame", "7", "--object", "2", "--box", "40,30,200,180", "-o", "o.mp4"])
    with pytest.raises(SamonnxError) as caught:
        check_boxes(parsed.prompts, width=220, height=200)
    assert str(caught.value).startswith("object 2, frame 7: --box 40,30,200,180 (left, top, width, height) goes from")
    assert str(caught.value).endswith("there is --box-corners")
    check_boxes(parsed.prompts, width=240, height=210)


def test_providers_are_kept_in_order_and_left_to_the_engine_if_there_are_none() -> None:
    line = ["d", "v", "--point", "1,1", "-o", "o.mp4"]
    assert parse_arguments(line).providers is None
    assert parse_arguments([*line, "--provider", "cuda", "--provider", "cpu"]).providers == ("cuda", "cpu")
