"""What training says on the terminal."""

from contseg.cli.console import console
from contseg.cli.progress import TerminalReporter


def test_a_message_is_one_line_in_a_log_under_the_name_of_its_run_and_word_for_word():
    text = "background fell by more than half: " + "65% of it is taken for '[red]cat'; " * 5
    with console.capture() as capture:
        TerminalReporter("plop").message(text)
    assert capture.get() == f"plop {text}\n"
