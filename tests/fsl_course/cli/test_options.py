import re
import subprocess
import sys

import pytest

import fsl_course
from fsl_classroom import __main__ as classroom
from fsl_course.__main__ import _parser, main
from fsl_course.cli.options import read


def given(*words: str):
    return read(*_parser(), words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluat"], "no command 'evaluat': choose one of doctor, train, evaluate, .*Did you mean .evaluate."),
        (["train", "prototypical", "--stpes", "5"], "the following arguments are required: --out"),
        (["train", "prototypical", "--out", "x", "--stpes", "5"], 'there is no option \'--stpes\' here. Did you mean "--steps"'),
        (["evaluate", "prototypical", "--split", "tset"], 'must be one of train, val, test, all.*Did you mean "test"'),
        (["train", "--preset", "snell-omniglt", "--out", "x"], 'Did you mean "snell-omniglot"'),
        (["train", "maml", "--preset", "snell-omniglot", "--out", "x"], "trains prototypical, not maml"),
        (["train", "--preset", "snell-miniimagenet", "--out", "x"], "needs --data FOLDER"),
        (["train", "--preset", "snell-omniglot", "--cosine", "--out", "x"], "exclude each other: add --halve-every none"),
        (["train", "--out", "x"], "which method"),
        (["train", "maml", "--norm", "bach", "--out", "x"], 'must be one of batch, group, none.*Did you mean "batch"'),
        *[
            (["train", "prototypical", "--out", "x", option, value], f"argument {option}: must be a .*{span}; got '{value}'")
            for option, value, span in (
                ("--way", "0", "from 2 to 10000"),
                ("--shot", "0", "from 1 to 10000"),
                ("--query", "0", "from 1 to 10000"),
                ("--steps", "-1", "of at least 1"),
                ("--tasks", "none", "from 1 to 10000"),
                ("--lr", "0", "number above 0 and at most 1e30"),
                ("--lr", "nan", "number above 0 and at most 1e30"),
                ("--lr", "inf", "number above 0 and at most 1e30"),
                ("--lr", "fast", "number above 0 and at most 1e30"),
                ("--lr", "1e300", "number above 0 and at most 1e30"),
                ("--clip", "-1", "number above 0 and at most 1e30"),
                ("--halve-every", "0", "of at least 1"),
                ("--width", "0", "from 1 to 1024"),
                ("--width", "1000000000", "from 1 to 1024"),
                ("--size", "15", "from 16 to 1024"),
                ("--seed", "-1", "from 0 to 4294967295"),
                ("--seed", "1.5", "from 0 to 4294967295"),
                ("--validate-every", "0", "of at least 1"),
            )
        ],
        (["evaluate", "prototypical", "--episodes", "1"], "--episodes: must be a whole number from 2 to"),
        (["evaluate", "prototypical", "--episodes", "1000000000"], "--episodes: must be a whole number from 2 to 1000000;"),
        (["train", "prototypical", "--out", ""], "--out: must be a name; got ''"),
        (["train", "prototypical", "--out", "x", "--data", " "], "--data: must be a name; got ' '"),
        (["evaluate", "prototypical", "--invert", "maybe"], "--invert: must be one of auto, yes, no"),
        (["evaluate", "prototypical", "--way", "1"], "--way: must be a whole number from 2 to"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_range_or_the_nearest_name(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == []


def test_mistakes_presets_and_help_need_no_pytorch():
    """Nothing heavy is loaded before the command line is known to be right: PyTorch takes seconds."""
    code = (
        "import sys; sys.modules['torch'] = None; from fsl_course.__main__ import main\n"
        "for words in (['train', 'maml', '--way', '0', '--out', 'x'], ['train', '--list-presets'], ['train', '--help'],\n"
        "              ['--version'], ['evaluat'], ['train', '--preset', 'nothing', '--out', 'x'], ['results', '--way', 'x']):\n"
        "    try:\n        main(words)\n    except SystemExit as stop:\n        print('status', stop.code)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert [line for line in run.stdout.splitlines() if line.startswith("status")] == [
        f"status {status}" for status in (2, 0, 0, 0, 2, 2, 2)
    ]
    assert run.stderr.count("error: ") == 4


def test_what_is_given_goes_before_the_preset_and_the_preset_before_the_defaults():
    plain = given("train", "prototypical", "--out", "x")
    preset = given("train", "--preset", "snell-omniglot", "--out", "x")
    both = given("train", "prototypical", "--way", "20", "--preset", "snell-omniglot", "--no-rotations", "--out", "x")
    assert (plain.way, plain.data, plain.rotations, plain.halve_every) == (None, "glyphs", False, None)
    assert (preset.method, preset.way, preset.data, preset.rotations) == ("prototypical", 60, "omniglot", True)
    assert preset.halve_every == 2000
    assert (both.way, both.data, both.rotations) == (20, "omniglot", False)  # 20 is given, though it is the default
    taken = given("train", "--preset", "snell-omniglot", "--halve-every", "none", "--cosine", "--out", "x")
    assert (taken.halve_every, taken.cosine) == (None, True)
    assert given("train", "maml", "--clip", "none", "--out", "x").clip is None


def test_own_settings_come_after_those_of_the_preset_and_stay_with_their_run():
    first = given("train", "--preset", "finn-omniglot-5way", "--set", "inner_lr=0.4", "--out", "x")
    assert first.set == ["inner_lr=2.0", "inner_steps=1", "test_steps=3", "inner_lr=0.4"]  # the last one counts
    assert given("train", "--preset", "finn-omniglot-5way", "--out", "x").set == first.set[:3]


def test_a_preset_takes_a_folder_whose_name_begins_with_a_dash():
    assert given("train", "--preset", "glyphs-quick", "--out=-odd").out == "-odd"


PROGRAMS = {"fsl_course": main, "fsl_classroom": classroom.main}
COMMANDS = [("fsl_course", command) for command in _parser()[1].choices]
COMMANDS += [("fsl_classroom", command) for command in classroom._parser()[1].choices]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        *[(program, ["--help"]) for program in PROGRAMS],
        *[(program, [command, "--help"]) for program, command in COMMANDS],
        ("fsl_course", ["train", "--list-presets"]),
    ],
    ids=str,
)
def test_help_and_presets_fit_a_terminal_of_80_columns(program, words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        PROGRAMS[program](words)
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("words", ["train --list-presets", "results --json"])
def test_output_that_nobody_reads_is_no_error(words):
    """As in `... | head -0`: the reader has gone before a word is written."""
    code = "import sys; sys.stdin.read(); from fsl_course.__main__ import main; sys.exit(main())"
    run = subprocess.Popen(
        [sys.executable, "-c", code, *words.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run.stdout.close()
    run.stdin.close()
    error = run.stderr.read()
    run.stderr.close()
    assert (run.wait(60), error) == (141, "")


def test_too_little_memory_is_said_in_words_and_a_mistake_of_the_program_is_not_hidden(monkeypatch, capsys):
    def fails(message: str):
        def run(*args):
            raise RuntimeError(message)

        return run

    monkeypatch.setattr(
        "fsl_course.cli.doctor.run", fails("DefaultCPUAllocator: can't allocate memory: 7947878400 bytes")
    )
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "error: the memory of this machine is too small for these settings.\n"
    monkeypatch.setattr("fsl_course.cli.doctor.run", fails("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        main(["doctor"])


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    assert "python -m fsl_course COMMAND --help" in capsys.readouterr().out


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fsl_course {fsl_course.__version__}\n"


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_help_has_examples(program, command, capsys):
    with pytest.raises(SystemExit) as stop:
        PROGRAMS[program]([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m {program} {command}" in capsys.readouterr().out.split("example", 1)[1]


def test_the_help_of_the_benchmark_has_examples():
    from tools.benchmark import options

    assert "python -m tools.benchmark" in options.parser().format_help().split("example", 1)[1]
