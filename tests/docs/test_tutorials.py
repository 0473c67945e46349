"""The tutorials do what they say: their blocks run, and print what the pages show."""

import pytest
from tutorial_pages import TUTORIALS, alike, blocks, differences, run

PAGES = [
    path
    for path in sorted(TUTORIALS.iterdir())
    if path.suffix in (".md", ".ipynb") and blocks(path)
]
QUICK = ("own_job",)  # the suite is to be short, and this page has files, commands and Python


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, worker_id):
    """One folder of prepared data sets for all pages."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=() if page.stem in QUICK else pytest.mark.slow)
        for page in PAGES
    ],
)
def test_a_page_prints_what_it_shows(page, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)
    for block, printed in run(page, tmp_path):
        found = differences(block.shown or (), printed)
        assert not found, "\n".join([block.text, *found])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_compiles(page):
    for block in blocks(page):
        if block.kind == "python" or block.kind.endswith(".py"):
            compile(block.text, page.name, "exec")


def test_blocks_are_read(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```{code-block} python\n:caption: a.py\n\nx = 1\n```\n\n"
        "```python\nprint(2)\n```\n```text\n2\n```\n\n"
        "```console\n$ ls \\\n    a.py\na.py\n$ true\n```\n",
        encoding="utf-8",
    )
    found = blocks(page)
    assert [(block.kind, block.text, block.shown) for block in found] == [
        ("a.py", "x = 1\n", None),
        ("python", "print(2)\n", ("2",)),
        ("command", "ls a.py", ("a.py",)),
        ("command", "true", ()),
    ]


def test_a_page_runs_in_order_in_one_namespace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```{code-block} python\n:caption: mine.py\n\nx = 1\n```\n"
        "```python\nimport mine\n\ny = mine.x + 1\n```\n"
        "```python\nprint(y)\n```\n```text\n3\n```\n"
        "```console\n$ cat mine.py | tr x z\nz = 1\n```\n",
        encoding="utf-8",
    )
    results = [(block, printed) for block, printed in run(page, tmp_path)]
    assert [printed for _, printed in results] == [[], ["2"], ["z = 1"]]
    assert [differences(block.shown or (), printed) for block, printed in results] == [
        [],
        ["shown: 3\n  printed: 2"],
        [],
    ]


def test_what_is_measured_may_differ_a_little_and_nothing_else():
    line = "step 20: test accuracy 0.98, 3.1 s"
    assert alike(line, "step 20: test accuracy 0.96, 21.3 s")
    assert alike(line, "step 20: test accuracy 1, 21.3 s")
    assert not alike(line, "step 20: test accuracy 0.7, 3.1 s")
    assert not alike(line, "step 30: test accuracy 0.98, 3.1 s")
    assert not alike(line, "step 20: train accuracy 0.98, 3.1 s")


def test_lines_may_be_left_out_where_the_page_says_so():
    assert not differences(("...", "b", "..."), ["a", "a", "b", "c"])
    assert not differences(("a", "..."), ["a"])
    assert differences(("...", "d", "..."), ["a", "b"])
    assert differences(("a",), ["a", "b"])
    assert differences(("a", "b", "c"), ["a"])
