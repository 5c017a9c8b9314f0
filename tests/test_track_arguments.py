from __future__ import annotations

from samonnx.runtime.prompts import Box, Points
from samonnx.track_arguments import make_prompts, parse_arguments


def test_a_prompt_belongs_to_the_object_and_frame_before_it() -> None:
    line = (
        "dist/x clip.mp4 --point 1,2 --point 3,4,0 --object 5 --box 1,1,9,9 --frame 7 --point 5.5,6 --object 1 "
        "--point 8,8 -o out.mp4"
    )
    prompts = make_prompts(parse_arguments(line.split()).prompts)
    assert {frame: sorted(objects) for frame, objects in prompts.items()} == {0: [1, 5], 7: [1, 5]}
    assert prompts[0][1].points == Points(((1.0, 2.0), (3.0, 4.0)), (1, 0))
    assert prompts[0][5].box == Box(1, 1, 9, 9)
    assert prompts[0][5].points is None
    assert prompts[7][5].points == Points(((5.5, 6.0),), (1,))
    assert prompts[7][1].points == Points(((8.0, 8.0),), (1,))


def test_a_box_and_clicks_of_one_object_go_together() -> None:
    prompts = make_prompts(
        parse_arguments(["d", "v", "--box", "1,1,9,9", "--point", "2,2", "--masks-dir", "m"]).prompts
    )
    assert prompts[0][1].box == Box(1, 1, 9, 9)
    assert prompts[0][1].points == Points(((2.0, 2.0),), (1,))


def test_parsing_twice_does_not_carry_prompts_over() -> None:
    for _ in range(2):
        assert len(parse_arguments(["d", "v", "--point", "1,1", "-o", "o.mp4"]).prompts) == 1
