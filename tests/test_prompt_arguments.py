from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samonnx.errors import SamonnxError
from samonnx.prompt_arguments import (
    PROMPT_OPTIONS,
    PromptArgument,
    add_prompt_options,
    add_vocabulary_option,
    check_boxes,
    make_prompts,
)
from samonnx.runtime.prompts import Box, Points, PromptError, Prompts


def parse(*words: str) -> tuple[PromptArgument, ...]:
    parser = argparse.ArgumentParser(prog="samonnx thing")
    add_prompt_options(parser, "prompts", box="around the thing")
    found: tuple[PromptArgument, ...] = parser.parse_args(words).prompts
    return found


def prompts_of(*words: str) -> Prompts:
    return make_prompts(parse(*words))


def test_all_kinds_become_one_prompts(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[1:3, 2:5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    prompts = prompts_of(
        *("--text", "a dog", "--point", "1,2", "--point", "3.5,4,0", "--box", "1,1,8,8", "--box-corners", "2,2,8,8,0"),
        *("--exemplar", "0,0,3,3,1", "--exemplar", "5,4,2,3,0", "--mask", str(tmp_path / "mask.png")),
    )
    assert prompts.text == "a dog"
    assert prompts.points == Points(((1.0, 2.0), (3.5, 4.0)), (1, 0))
    assert prompts.boxes == (Box(1, 1, 9, 9), Box(2, 2, 8, 8, 0))
    assert prompts.exemplars == (Box(0, 0, 3, 3), Box(5, 4, 7, 7, 0))
    assert prompts.mask is not None
    np.testing.assert_array_equal(prompts.mask.mask, mask > 0)


def test_a_box_is_left_top_width_height_and_its_corners_have_an_option_of_their_own() -> None:
    assert prompts_of("--box", "40,30,160,150").boxes == prompts_of("--box-corners", "40,30,200,180").boxes
    assert prompts_of("--exemplar", "40,30,160,150,0").exemplars == (Box(40, 30, 200, 180, 0),)


def test_a_box_up_to_the_edge_of_the_frame_is_on_it() -> None:
    for words in ("10.1,0,35.9,32", "0.1,0.2,45.9,31.8", "0,0,46,32"):
        check_boxes(parse("--box", words), width=46, height=32)


def test_a_box_beyond_the_frame_may_be_corners_and_the_message_says_how_to_give_those() -> None:
    with pytest.raises(PromptError) as caught:
        check_boxes(parse("--point", "1,1", "--box", "40,30,200,180"), width=220, height=200)
    assert str(caught.value) == (
        "--box 40,30,200,180 (left, top, width, height) goes from (40, 30) to (240, 210), beyond the frame, which is "
        "220 x 200 pixels. For corners X0,Y0,X1,Y1 (left, top, right, bottom) there is --box-corners"
    )
    with pytest.raises(PromptError, match="give --exemplar X0,Y0,X1-X0,Y1-Y0"):
        check_boxes(parse("--exemplar=-1,0,9,9"), width=46, height=32)
    check_boxes(parse("--box-corners", "40,30,240,210"), width=220, height=200)  # said by the runtime, as corners


def test_the_order_of_the_command_line_is_kept() -> None:
    given = parse("--box", "1,1,9,9", "--text", "a dog", "--point", "1,2")
    assert [argument.option for argument in given] == ["--box", "--text", "--point"]


def test_without_prompts_there_are_none_however_often_it_is_parsed() -> None:
    parser = argparse.ArgumentParser()
    add_prompt_options(parser, "prompts", box="around the thing")
    assert len(parser.parse_args(["--point", "1,1"]).prompts) == 1
    assert parser.parse_args([]).prompts == ()


def test_every_option_is_listed() -> None:
    parser = argparse.ArgumentParser()
    add_prompt_options(parser, "prompts", box="around the thing")
    there = [option for action in parser._actions for option in action.option_strings]
    assert [option for option in there if option not in ("-h", "--help")] == list(PROMPT_OPTIONS)


def test_the_vocabulary_is_a_path_or_none() -> None:
    parser = argparse.ArgumentParser()
    add_vocabulary_option(parser.add_argument_group("running"))
    assert parser.parse_args([]).vocabulary is None
    assert parser.parse_args(["--vocabulary", "v.txt"]).vocabulary == Path("v.txt")
    assert "CLIP's bpe_simple_vocab_16e6.txt.gz" in " ".join(parser.format_help().split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", " "], 'argument --text: expected words, for example "a dog"; found nothing but space'),
        (
            ["--point", "5"],
            "argument --point: expected X,Y or X,Y,LABEL with label 1 or 0, for example 320,240,1; found",
        ),
        (["--point", "5,6,2"], "expected X,Y or X,Y,LABEL with label 1 or 0, for example 320,240,1; found '5,6,2'"),
        (["--point", "5,6,1,1"], "found '5,6,1,1'"),
        (["--point", "5,nan"], "point (5.0, nan): expected finite pixel coordinates"),
        (["--box", "1,2,3"], "argument --box: expected X,Y,WIDTH,HEIGHT (left, top, width, height) and perhaps ,LABEL"),
        (["--box", "1,2,3,x"], "for example 40,30,160,150; found '1,2,3,x'"),
        (
            ["--box", "9,2,0,4"],
            "argument --box: box 9,2,0,4 has the width 0: expected left, top, width and height, the ",
        ),
        (
            ["--box", "9,2,3,-4"],
            "the last two above 0. For corners X0,Y0,X1,Y1 (left, top, right, bottom) there is --box-corners",
        ),
        (["--box", "1,2,inf,4"], "box 1,2,inf,4: expected finite numbers of pixels"),
        (["--exemplar", "1,2,3,4,7"], "argument --exemplar: expected X,Y,WIDTH,HEIGHT (left, top, width, height)"),
        (
            ["--exemplar", "1,4,-3,2,0"],
            "box 1,4,-3,2 has the width -3: expected left, top, width and height, the last "
            "two above 0. For corners X0,Y0,X1,Y1 (left, top, right, bottom) give --exemplar X0,Y0,X1-X0,Y1-Y0",
        ),
        (["--box-corners", "1,2,3"], "argument --box-corners: expected X0,Y0,X1,Y1 (left, top, right, bottom) and "),
        (["--box-corners", "1,2,3,x"], "for example 40,30,200,180; found '1,2,3,x'"),
        (["--box-corners", "1,2,inf,4"], "box (1, 2, inf, 4): expected finite pixel coordinates"),
        (
            ["--box-corners", "9,2,3,4"],
            "box (9, 2, 3, 4) is empty: expected x0 < x1 and y0 < y1 (left, top, right, "
            "bottom). For a width and a height there is --box",
        ),
    ],
)
def test_a_prompt_that_cannot_be_read_is_wrong_usage(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "a dog", "--text", "a cat"], "--text is given 2 times for the same thing; expected once"),
        (["--mask", "a.png", "--mask", "b.png"], "--mask is given 2 times for the same thing; expected once"),
        (["--mask", "nowhere.png"], "mask nowhere.png does not exist"),
        ([], "the prompts are empty: give words, points, a box, an exemplar or a mask"),
    ],
)
def test_prompts_that_do_not_make_sense_together_are_an_error(words: list[str], message: str) -> None:
    with pytest.raises(SamonnxError) as caught:
        prompts_of(*words)
    assert str(caught.value) == message
