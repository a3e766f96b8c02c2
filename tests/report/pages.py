"""Reading a report as a program would."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The tables, references, images, titles and texts of an HTML page.

    `tables`: rows of cell texts, per table, with the id or class of the table in `names`. `anchors`: links into the page.
    """

    def __init__(self, text: str):
        super().__init__()
        self.names: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.references: list[str] = []
        self.images: list[dict[str, str]] = []
        self.headings: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.title = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = {key: value or "" for key, value in attributes}
        self._open.append(tag)
        named = [given[key] for key in ("src", "href", "srcset", "action", "data", "poster") if key in given]
        self.references += [reference for reference in named if not reference.startswith("#")]  # a place on the page itself
        if tag == "a" and given["href"].startswith("#"):
            self.anchors.append(given["href"][1:])
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "img":
            self.images.append(given)
        if tag in ("img", "meta", "br", "link", "input", "source"):
            self._open.pop()
        if tag == "table":
            self.names.append(given.get("id") or given.get("class") or "")
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, text):
        inside = set(self._open)
        if "title" in inside:
            self.title += text
        if inside & {"td", "th"}:
            self.tables[-1][-1][-1] += text.strip()
        if inside & {"h1", "h2", "h3"}:
            self.headings[-1] += text

    def table(self, name: str) -> list[list[str]]:
        """The rows of the first table of this id or class."""
        return self.tables[self.names.index(name)]
