"""A strict reader of the little LaTeX that tables use, in place of a LaTeX."""

import re

COMMANDS = {
    "begin", "end", "centering", "small", "caption", "label", "toprule", "midrule", "bottomrule", "smallskip",
    "linewidth", "footnotesize", "par", "textbackslash", "textasciitilde", "textasciicircum", "textless",
    "textgreater", "textbar",
}  # fmt: skip
TOKEN = re.compile(r"\\([a-zA-Z]+|.)|([{}&$%#_^~<>|\"])|\n", re.DOTALL)


def check(text: str) -> list[list[str]]:
    """The cells of the tabular; AssertionError for what LaTeX would refuse or print otherwise."""
    text = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
    environments: list[str] = []
    depth, math = 0, False
    for token in TOKEN.finditer(text):
        command, sign = token.groups()
        if command is not None and command.isalpha():
            assert command in COMMANDS, command
            name = re.match(r"\{(\w+)\}", text[token.end() :])
            if command == "begin":
                assert name
                environments.append(name[1])
            if command == "end":
                assert name
                assert environments.pop() == name[1]
        elif command is not None:
            assert command in "\\&%$#_{}", command
        elif sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            assert depth >= 0
        elif sign == "$":
            math = not math
        elif sign is not None:
            assert sign == "&", sign
            assert environments[-1] == "tabular"
        assert not (math and token[0] == "\n"), "mathematics ends on its line"
    assert (environments, depth, math) == ([], 0, False)
    found = re.search(r"\\begin\{tabular\}\{(l+r+)\}\n(.*?)\n *\\end\{tabular\}", text, re.DOTALL)
    assert found
    lines = [line.strip() for line in found[2].splitlines()]
    rows = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {len(found[1])}
    assert [line for line in lines if not line.endswith(r"\\")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    return [[cell.strip() for cell in row] for row in rows]
