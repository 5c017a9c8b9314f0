from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.prompt_arguments import PromptArgument
from samonnx.runtime.prompts import Box
from samonnx.segment_arguments import parse_arguments


def test_everything_is_parsed() -> None:
    line = (
        "dist/x a.jpg b.jpg --text dogs --exemplar 1,1,8,8,0 --point 2,3 --threshold 0.3 --nms 0.6 -o out "
        "--target onnx --threads 2 --vocabulary v.txt.gz --provider cuda --provider cpu --quiet"
    )
    found = parse_arguments(line.split())
    assert (found.folder, found.images, found.output) == (Path("dist/x"), (Path("a.jpg"), Path("b.jpg")), Path("out"))
    assert found.prompts == (
        PromptArgument("--text", "dogs"),
        PromptArgument("--exemplar", Box(1, 1, 9, 9, 0)),
        PromptArgument("--point", (2.0, 3.0, 1)),
    )
    assert (found.threshold, found.nms, found.target, found.threads, found.quiet) == (0.3, 0.6, "onnx", 2, True)
    assert found.vocabulary == Path("v.txt.gz")
    assert found.providers == ("cuda", "cpu")


def test_what_is_not_said_is_the_model_s_threshold_and_the_video_model_s_suppression() -> None:
    found = parse_arguments(["d", "a.jpg", "--text", "dogs", "-o", "out.png"])
    assert (found.threshold, found.nms, found.target, found.threads, found.quiet) == (None, None, None, None, False)
    assert found.vocabulary is None
    assert found.providers is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "out.png"], "nothing to look for: give at least one prompt, --text WORDS, --exemplar x,y,w,h"),
        (["--text", "a dog"], "the following arguments are required: -o/--output"),
        (["--text", "a dog", "-o", "o.png", "--threshold", "1.5"], "expected a number from 0 to 1; found '1.5'"),
        (["--text", "a dog", "-o", "o.png", "--nms", "x"], "expected a number from 0 to 1; found 'x'"),
        (["--text", "a dog", "-o", "o.png", "--threads", "0"], "expected a whole number of at least 1; found '0'"),
        (["--box", "9,2,3,-4", "-o", "o.png"], "box 9,2,3,-4 has the height -4: expected left, top, width and height"),
        (["--exemplar", "1,2,3,4,5", "-o", "o.png"], "with label 1 or 0, for example 40,30,160,150; found '1,2,3,4,5'"),
        (["--texd", "a dog", "-o", "o.png"], "unrecognized arguments: --texd a dog"),
    ],
)
def test_wrong_usage_says_what_is_wrong(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["d", "a.jpg", *options])
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
