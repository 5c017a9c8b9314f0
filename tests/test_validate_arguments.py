from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.runtime.prompts import Box, Points
from samonnx.validate_arguments import ValidateArguments, parse_arguments, prompts_by_frame


def parse(*arguments: str) -> ValidateArguments:
    return parse_arguments(["dist/x", *arguments])


def test_without_options_the_synthetic_clip_is_run_against_the_artifacts_own_recipe() -> None:
    found = parse()
    assert found.folder == Path("dist/x")
    assert (found.video, found.frames, found.prompts, found.recipe, found.checkpoint) == (None, None, (), None, None)
    assert (found.from_reference, found.maps, found.max_error, found.min_iou) == (False, "own", 1e-3, 0.99)
    assert (found.json, found.plot, found.quiet, found.providers) == (None, None, False, None)


def test_all_options() -> None:
    found = parse(
        "--video", "clip.mp4", "--frames", "9", "--box", "1,2,30,40", "--frame", "4", "--point", "5,6,0", "--recipe",
        "r.yaml", "--checkpoint", "c.pt", "--from-reference", "--maps", "graph", "--max-error", "1e-5", "--min-iou",
        "0.5", "--json", "a.json", "--plot", "a.png", "--quiet", "--target", "onnx", "--threads", "2", "--provider",
        "cuda", "--provider", "cpu",
    )  # fmt: skip
    assert (found.video, found.frames, found.recipe, found.checkpoint) == (
        Path("clip.mp4"), 9, Path("r.yaml"), Path("c.pt"),
    )  # fmt: skip
    assert (found.from_reference, found.maps, found.max_error, found.min_iou) == (True, "graph", 1e-5, 0.5)
    assert (found.json, found.plot, found.quiet) == (Path("a.json"), Path("a.png"), True)
    assert (found.target, found.threads, found.providers) == ("onnx", 2, ("cuda", "cpu"))
    prompts = prompts_by_frame(found.prompts)
    assert list(prompts) == [0, 4]
    assert prompts[0].boxes == (Box(1, 2, 31, 42),)
    assert prompts[4].points == Points(((5.0, 6.0),), (0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--video", "clip.mp4"), "nothing to track in --video: show the object by --point X,Y"),
        (("--text", "a dog"), "--text is for the detector, which this command does not compare"),
        (("--exemplar", "1,2,3,4"), "--exemplar is for the detector, which this command does not compare"),
        (("--frame", "3", "--point", "1,2", "--frames", "3"), "there is a prompt on frame 3, but --frames 3 ends"),
        (("--json", "a.png", "--plot", "a.png"), "--json and --plot are the same file, a.png"),
        (("--max-error", "-1"), "expected a number from 0 on, for example 1e-3; found '-1'"),
        (("--max-error", "nan"), "expected a number from 0 on, for example 1e-3; found 'nan'"),
        (("--min-iou", "1.5"), "expected a number from 0 to 1; found '1.5'"),
        (("--plot", "a.pdf"), "expected the name of a .png file; found 'a.pdf'"),
        (("--maps", "both"), "invalid choice: 'both'"),
        (("--frames", "0"), "expected a whole number of at least 1; found '0'"),
    ],
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(*arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_the_help_leaves_out_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "--box " in text
    assert "--text" not in text
    assert "--exemplar" not in text
