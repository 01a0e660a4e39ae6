"""The notebooks as one meets them in JupyterLab: opened in a headless Chromium without a network, every figure is drawn.

A cloned notebook is not trusted: JupyterLab cleans its HTML and runs no script of it, while plotly's renderer draws from
data alone. `jupyter trust`, or running it, makes it trusted.

Once plotly's renderer has drawn a figure it adds a PNG of it to the output. A notebook saved with these shows them when it is
loaded again, and plotly draws a figure anew when the mouse enters its PNG. JupyterLab saves by itself after two minutes.
"""

import os
import time
import unittest

import chromium
import nbformat
from client import CLONE, NOTEBOOKS
from labserver import Lab

PATIENCE = 300  # seconds: a busy machine is slow, and no test asserts a time
PLOTLY = "application/vnd.plotly.v1+json"

# What the outputs on the page hold: for each one its cell, its place in the cell, and the kinds of content in it that have some size.
# Figures of plotly of which there is neither a drawing nor a PNG count as waiting.
LOOK = """(() => {
  const sized = least => one => { const box = one.getBoundingClientRect(); return box.width > least && box.height > least; };
  const seen = [];
  let waiting = 0;
  for (const cell of document.querySelectorAll('.jp-Notebook .jp-CodeCell')) {
    const index = Number(cell.dataset.windowedListIndex);
    [...cell.querySelectorAll('.jp-Cell-outputArea > .jp-OutputArea-child')].forEach((output, place) => {
      if (!output.isConnected || !output.getClientRects().length) return;
      const has = (kind, least) => [...output.querySelectorAll(kind)].some(sized(least));
      const kinds = {
        plotly: has('.js-plotly-plot svg.main-svg', 50),
        png: has('.jp-RenderedPlotly > img.plot-img', 50),
        drawing: has('svg, img, canvas', 50),
        html: has('.jp-RenderedHTMLCommon *', 10),
      };
      seen.push([index, place, Object.keys(kinds).filter(name => kinds[name])]);
      if (output.querySelector('.jp-RenderedPlotly') && !kinds.plotly && !kinds.png) waiting += 1;
    });
  }
  const pane = document.querySelector('.jp-WindowedPanel-outer');
  return { seen, waiting, bottom: pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 2 };
})()"""
# The middles of the PNGs in sight.
PNGS = """(() => {
  const pane = document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
  const boxes = [...document.querySelectorAll('.jp-RenderedPlotly > img.plot-img')].map(one => one.getBoundingClientRect());
  const middles = boxes.filter(box => box.height > 50).map(box => [box.x + box.width / 2, box.y + box.height / 2]);
  return middles.filter(([x, y]) => y > pane.top && y < pane.bottom);
})()"""
SCROLL = "(() => { const pane = document.querySelector('.jp-WindowedPanel-outer'); pane.scrollTop += 0.7 * pane.clientHeight; })()"
# The numbers of all code cells, also of those out of sight; null is a cell that was not run.
COUNTS = "jupyterapp.shell.currentWidget.content.widgets.map(one => one.model).filter(one => one.type === 'code').map(one => one.executionCount)"
OPEN = """(() => {
  const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];
  return cells.some(cell => cell.getBoundingClientRect().height > 0) && !document.querySelector('.jp-NotebookPanel .jp-Spinner');
})()"""
TOP = "document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0"


def expected(path):
    """The outputs that plotly draws and those that are HTML alone, by cell and place in it."""
    plotly, html = set(), set()
    for index, cell in enumerate(nbformat.read(path, as_version=4).cells):
        place, before = -1, None
        for output in cell.get("outputs", []):
            if output.get("name", "") != before or output.output_type != "stream":
                place += 1  # JupyterLab joins what one stream wrote in pieces
            before = output.get("name")
            data = output.get("data", {})
            if PLOTLY in data:
                plotly.add((index, place))
            elif "text/html" in data:
                html.add((index, place))
    return plotly, html


def look(page):
    """Scrolls through the notebook as a reader does, for what is out of sight is not on the page, and points at every PNG; what
    was seen of each output."""
    page.wait(OPEN, "JupyterLab showed no cell", PATIENCE)
    page.run(TOP)
    seen, still = {}, 0
    while still < 3:
        for now in [settled(page), pointed(page)]:
            for index, place, kinds in now["seen"]:
                seen.setdefault((index, place), set()).update(kinds)
        page.run(SCROLL)
        time.sleep(0.3)
        still = still + 1 if now["bottom"] and page.run(LOOK)["bottom"] else 0
    return seen


def settled(page):
    """What is in sight, once nothing waits to be drawn, or after 20 s."""
    end = time.monotonic() + 20
    while (now := page.run(LOOK))["waiting"] and time.monotonic() < end:
        time.sleep(0.2)
    return now


def pointed(page):
    """What is in sight, once the mouse was moved to every PNG and plotly has drawn its figure."""
    chromium.until(lambda: not [page.point(*middle) for middle in page.run(PNGS)], PATIENCE, "a PNG pointed at was not drawn anew")
    return page.run(LOOK)


def picture(page, name, plotly):
    """Writes what the page shows around its first figure."""
    page.run(f"[...jupyterapp.shell.widgets('main')][0].content.scrollToItem({min(plotly)[0]}, 'start')")
    settled(page)
    page.picture(CLONE / "lab" / f"{name}-in-lab.png")


class OpenedNotebooks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        browser_or_skip()
        cls.notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
        cls.lab = Lab(cls.notebooks, CLONE / "data")
        cls.addClassCleanup(cls.lab.stop)
        cls.page = chromium.Page()
        cls.addClassCleanup(cls.page.close)

    def test_every_figure_is_drawn_when_a_cloned_notebook_is_opened_and_when_it_is_trusted_and_loaded_again(self):
        for notebook in self.notebooks:
            with self.subTest(notebook.stem):
                plotly, html = expected(notebook)
                self.page.open(self.lab.address(notebook.name))
                untrusted = look(self.page)
                picture(self.page, notebook.stem, plotly)
                self.assert_drawn(notebook, "opened", untrusted, plotly, html)
                self.lab.trust(notebook.name)
                self.page.reload()
                trusted = look(self.page)
                self.assert_drawn(notebook, "trusted and loaded again", trusted, plotly, html)

    def assert_drawn(self, notebook, when, seen, plotly, html):
        drawn = {key for key in plotly if "plotly" in seen.get(key, ())}
        shown = {key for key in html if "html" in seen.get(key, ())}
        print(f"{notebook.stem}, {when}: {len(drawn)} of {len(plotly)} figures drawn, {len(shown)} of {len(html)} outputs of HTML shown")
        self.assertEqual((drawn, shown), (plotly, html), f"{notebook.stem}, {when}: {seen}")


class RunInLab(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        browser_or_skip()
        cls.notebook = min(NOTEBOOKS.glob("*.ipynb"))
        cls.lab = Lab([cls.notebook], CLONE / "data", real_kernel=True)
        cls.addClassCleanup(cls.lab.stop)
        cls.page = chromium.Page()
        cls.addClassCleanup(cls.page.close)

    def test_the_first_notebook_run_from_the_menu_draws_every_figure_and_draws_it_anew_after_a_reload_when_pointed_at(self):
        plotly, _ = expected(self.notebook)
        copy = self.lab.folder / self.notebook.name
        cells = self.without_outputs(copy)
        self.page.open(self.lab.address(copy.name))
        self.page.wait(OPEN, "JupyterLab showed no cell", PATIENCE)
        chromium.until(lambda: self.lab.kernels() == ["idle"], PATIENCE, "the kernel was not ready")
        self.page.click(".lm-MenuBar-item", "Run")
        self.page.click(".lm-Menu-item[data-command='runmenu:run-all']")
        chromium.until(lambda: self.page.run(COUNTS)[-1], 900, "the last cell did not run")
        self.assertEqual(self.page.run(COUNTS), list(range(1, cells + 1)))
        self.assert_drawn("run", plotly)
        self.page.click(".lm-MenuBar-item", "File")
        self.page.click(".lm-Menu-item[data-command='docmanager:save']")
        chromium.until(lambda: expected(copy)[0] == plotly, PATIENCE, "the notebook was not saved")
        self.page.reload()
        self.assert_drawn("loaded again", plotly)

    def without_outputs(self, path):
        """Empties the code cells' outputs in the file; how many cells there are."""
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell in code:
            cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
        return len(code)

    def assert_drawn(self, when, plotly):
        seen = look(self.page)
        drawn = {key for key in plotly if "plotly" in seen.get(key, ())}
        before = sum("png" in kinds for kinds in seen.values())
        print(f"{self.notebook.stem}, {when} in JupyterLab: {len(drawn)} of {len(plotly)} figures drawn, {before} of them a PNG before")
        picture(self.page, f"{self.notebook.stem}-{when.replace(' ', '-')}", plotly)
        self.assertEqual(drawn, plotly, f"{when}: {seen}")


def browser_or_skip():
    if chromium.installed():
        return
    if os.environ.get("CI") == "true":
        raise AssertionError("no Chromium here, and CI must have one (Debian: apt-get install chromium)")
    raise unittest.SkipTest("no Chromium here: JupyterLab was not looked at (Debian: apt-get install chromium)")
